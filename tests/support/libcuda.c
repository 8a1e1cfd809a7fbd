/* A stand-in for NVIDIA's driver library: GPUs, which variables of the environment describe, and their contexts.
 *
 * FAKE_GPUS lists the GPUs in CUDA's order, as "name:major:minor,...". FAKE_CONTEXT is the number of the GPU whose context
 * is current at the start. CUDA_VISIBLE_DEVICES has its effect for lists of numbers: the list ends at the first that names
 * no GPU. Where FAKE_CUINIT is set, functions return this error. tests/gpu_contract/driver.c adds memory, streams and graphs.
 */
#if __has_include(<cuda.h>)
#include <cuda.h>
#else /* what is needed of it */
typedef enum { CUDA_SUCCESS, CUDA_ERROR_OUT_OF_MEMORY = 2, CUDA_ERROR_NOT_INITIALIZED,
  CUDA_ERROR_NO_DEVICE = 100, CUDA_ERROR_INVALID_DEVICE, CUDA_ERROR_INVALID_CONTEXT = 201 } CUresult;
typedef enum { CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MAJOR = 75, CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MINOR } CUdevice_attribute;
typedef int CUdevice;
typedef struct CUctx_st *CUcontext;
#endif
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define MAX_GPUS 8
struct CUctx_st { char gpu[64]; int major, minor; };
static struct CUctx_st seen[MAX_GPUS];
static int seen_count;
static _Thread_local CUcontext current[64];
static _Thread_local int depth;
long standin_contexts;

/* Devices. */
CUresult cuInit(unsigned flags)
{
  const char *code = getenv("FAKE_CUINIT"), *gpus = getenv("FAKE_GPUS"), *visible = getenv("CUDA_VISIBLE_DEVICES");
  const char *context = getenv("FAKE_CONTEXT");
  struct CUctx_st all[MAX_GPUS];
  int count = 0;
  (void)flags;
  if (code) return (CUresult)atoi(code);
  if (seen_count) return CUDA_SUCCESS;
  while (gpus && count < MAX_GPUS
         && sscanf(gpus, "%63[^:]:%d:%d", all[count].gpu, &all[count].major, &all[count].minor) == 3) {
    count++;
    gpus = strchr(gpus, ',');
    if (gpus) gpus++;
  }
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
  if (context) current[depth++] = &seen[atoi(context)];
  return seen_count ? CUDA_SUCCESS : CUDA_ERROR_NO_DEVICE;
}
CUresult cuDriverGetVersion(int *version)
{
  const char *value = getenv("FAKE_CUDA");
  *version = value ? atoi(value) : 13000;
  return CUDA_SUCCESS;
}
CUresult cuDeviceGetCount(int *count) { *count = seen_count; return CUDA_SUCCESS; }
CUresult cuDeviceGet(CUdevice *device, int number)
{
  if (!seen_count) return CUDA_ERROR_NOT_INITIALIZED;
  if (number < 0 || number >= seen_count) return CUDA_ERROR_INVALID_DEVICE;
  *device = number;
  return CUDA_SUCCESS;
}
CUresult cuDeviceGetName(char *name, int size, CUdevice device)
{ snprintf(name, size, "%s", seen[device].gpu); return CUDA_SUCCESS; }
CUresult cuDeviceGetPCIBusId(char *id, int size, CUdevice device)
{ snprintf(id, size, "0000:%x:00.0", 0x65 + device); return CUDA_SUCCESS; }
CUresult cuDeviceGetAttribute(int *value, CUdevice_attribute which, CUdevice device)
{
  *value = which == CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MAJOR ? seen[device].major
    : which == CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MINOR ? seen[device].minor : 0;
  return CUDA_SUCCESS;
}
CUresult cuGetErrorString(CUresult error, const char **text)
{
  const char *code = getenv("FAKE_CUINIT");
  *text = code ? NULL : error == CUDA_ERROR_NO_DEVICE ? "no CUDA-capable device is detected"
    : error == CUDA_ERROR_OUT_OF_MEMORY ? "out of memory" : "an error of the stand-in";
  return code ? (CUresult)atoi(code) : CUDA_SUCCESS;
}
CUresult cuGetErrorName(CUresult error, const char **text) { return cuGetErrorString(error, text); }

/* Contexts: one for each GPU. Each thread has a stack of current ones. */
CUresult cuDevicePrimaryCtxRetain(CUcontext *context, CUdevice device)
{ standin_contexts++; *context = &seen[device]; return CUDA_SUCCESS; }
CUresult cuDevicePrimaryCtxRelease_v2(CUdevice device) { (void)device; standin_contexts--; return CUDA_SUCCESS; }
CUresult cuCtxDetach(CUcontext context) { (void)context; standin_contexts--; return CUDA_SUCCESS; }
CUresult cuCtxPushCurrent_v2(CUcontext context) { current[depth++] = context; return CUDA_SUCCESS; }
CUresult cuCtxPopCurrent_v2(CUcontext *context)
{
  if (!depth) return CUDA_ERROR_INVALID_CONTEXT;
  depth--;
  if (context) *context = current[depth];
  return CUDA_SUCCESS;
}
CUresult cuCtxGetCurrent(CUcontext *context) { *context = depth ? current[depth - 1] : NULL; return CUDA_SUCCESS; }
CUresult cuCtxSetCurrent(CUcontext context)
{ depth += !depth; current[depth - 1] = context; return CUDA_SUCCESS; }
CUresult cuCtxGetDevice(CUdevice *device)
{
  if (!depth) return CUDA_ERROR_INVALID_CONTEXT;
  *device = (CUdevice)(current[depth - 1] - seen);
  return CUDA_SUCCESS;
}
CUresult cuCtxGetApiVersion(CUcontext context, unsigned *version)
{ (void)context; *version = 13000; return CUDA_SUCCESS; }
CUresult cuCtxSynchronize(void) { return depth ? CUDA_SUCCESS : CUDA_ERROR_INVALID_CONTEXT; }
