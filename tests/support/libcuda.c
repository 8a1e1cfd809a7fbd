/* A stand-in for NVIDIA's driver: the calls of its public interface that describe GPUs.

   FAKE_GPUS lists them in CUDA's order, as "name:major:minor,...". FAKE_CONTEXT is the number of the GPU whose context is
   current. CUDA_VISIBLE_DEVICES has its effect for lists of numbers: the list ends at the first that names no GPU. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define MAX_GPUS 8
static struct { char name[64]; int major, minor; } all[MAX_GPUS], seen[MAX_GPUS];
static int seen_count, ready;

int cuInit(unsigned flags)
{
    const char *code = getenv("FAKE_CUINIT"), *gpus = getenv("FAKE_GPUS"), *visible = getenv("CUDA_VISIBLE_DEVICES");
    int count = 0;
    (void)flags;
    if (code) return atoi(code);
    while (gpus && count < MAX_GPUS
           && sscanf(gpus, "%63[^:]:%d:%d", all[count].name, &all[count].major, &all[count].minor) == 3) {
        count++;
        gpus = strchr(gpus, ',');
        if (gpus) gpus++;
    }
    seen_count = 0;
    if (!visible) {
        memcpy(seen, all, sizeof all);
        seen_count = count;
    }
    while (visible && *visible && seen_count < MAX_GPUS) {
        char *end;
        long number = strtol(visible, &end, 10);
        if (end == visible || number < 0 || number >= count) break;
        seen[seen_count++] = all[number];
        visible = *end == ',' ? end + 1 : end;
    }
    ready = seen_count > 0;
    return ready ? 0 : 100; /* CUDA_ERROR_NO_DEVICE */
}

int cuDeviceGet(int *device, int number)
{
    if (!ready) return 3; /* CUDA_ERROR_NOT_INITIALIZED */
    if (number >= seen_count) return 101; /* CUDA_ERROR_INVALID_DEVICE */
    *device = number;
    return 0;
}

int cuCtxGetDevice(int *device)
{
    const char *number = getenv("FAKE_CONTEXT");
    if (!number) return 201; /* CUDA_ERROR_INVALID_CONTEXT */
    return cuDeviceGet(device, atoi(number));
}

int cuDeviceGetName(char *name, int size, int device) { snprintf(name, size, "%s", seen[device].name); return 0; }

int cuDeviceGetAttribute(int *value, int which, int device)
{
    *value = which == 75 ? seen[device].major : which == 76 ? seen[device].minor : 0;
    return 0;
}

int cuDriverGetVersion(int *version)
{
    const char *value = getenv("FAKE_CUDA");
    *version = value ? atoi(value) : 13000;
    return 0;
}

int cuGetErrorString(int code, const char **text)
{
    *text = code == 100 ? "no CUDA-capable device is detected" : NULL;
    return code == 100 ? 0 : 1;
}
