/* A stand-in for NVIDIA's driver library: memory, streams and graphs, as far as PyCUDA and cuda-python call them here.
 * tests/support/libcuda.c is the rest. It has one GPU where FAKE_GPUS is not set.
 *
 * The GPU's memory is the host's. A stream does its work at once, or adds it to the graph that is being captured. A
 * test reads and sets the variables of the first section. STANDIN_REPORT is a file for the counts at the end.
 */
#define _GNU_SOURCE
#include <cuda.h>
#include <dlfcn.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

/* What tests read and set. */
long standin_free_bytes = 1L << 30, standin_free_host_bytes = 1L << 30;
long standin_allocations, standin_frees, standin_pageable_copies;
extern long standin_contexts; /* of libcuda.c */
long standin_streams, standin_events, standin_graphs, standin_captures;
long standin_launches, standin_nodes, standin_stream_flags; /* the last two: of the last graph and the last stream */
const char *standin_fails = ""; /* the function that returns standin_error */
int standin_error = CUDA_ERROR_LAUNCH_FAILED;

struct allocation { char *start; size_t bytes; int is_host; struct allocation *next; };
struct work { CUevent event; CUhostFn call; void *to; const void *from; size_t bytes; };
struct CUevent_st { double at_ms; };
struct CUgraph_st { struct work *works; long count; int is_broken; };
struct CUstream_st { CUgraph captured; };

static struct allocation *allocations;

#define API CUresult CUDAAPI
#define START if (!strcmp(standin_fails, __func__)) return (CUresult)standin_error
#define START_IN_CONTEXT START; if (cuCtxSynchronize()) return CUDA_ERROR_INVALID_CONTEXT

/* Memory. */
static struct allocation **find(const void *address, size_t bytes)
{
  for (struct allocation **each = &allocations; *each; each = &(*each)->next)
    if ((const char *)address >= (*each)->start && (const char *)address + bytes <= (*each)->start + (*each)->bytes)
      return each;
  return NULL;
}
static CUresult allocate(void **address, size_t bytes, int is_host)
{
  long *left = is_host ? &standin_free_host_bytes : &standin_free_bytes;
  if (standin_captures) return CUDA_ERROR_STREAM_CAPTURE_UNSUPPORTED;
  if ((long)bytes > *left) return CUDA_ERROR_OUT_OF_MEMORY;
  struct allocation *made = malloc(sizeof *made);
  *made = (struct allocation){aligned_alloc(256, (bytes + 255) / 256 * 256), bytes, is_host, allocations};
  memset(made->start, 0x4d, bytes); /* not zeros: a test sees memory that nothing was written to */
  allocations = made;
  *left -= bytes;
  standin_allocations++;
  *address = made->start;
  return CUDA_SUCCESS;
}
static CUresult release(void *address, int is_host)
{
  struct allocation **found = find(address, 1), *freed = found ? *found : NULL;
  if (!freed || freed->start != address || freed->is_host != is_host) return CUDA_ERROR_INVALID_VALUE;
  *found = freed->next;
  *(is_host ? &standin_free_host_bytes : &standin_free_bytes) += freed->bytes;
  standin_frees++;
  free(freed->start);
  free(freed);
  return CUDA_SUCCESS;
}
API cuMemAlloc(CUdeviceptr *address, size_t bytes) { START_IN_CONTEXT; return allocate((void **)address, bytes, 0); }
API cuMemFree(CUdeviceptr address) { START_IN_CONTEXT; return release((void *)address, 0); }
API cuMemHostAlloc(void **address, size_t bytes, unsigned flags)
{ START_IN_CONTEXT; (void)flags; return allocate(address, bytes, 1); }
API cuMemFreeHost(void *address) { START_IN_CONTEXT; return release(address, 1); }
API cuMemGetInfo(size_t *left, size_t *total)
{ START_IN_CONTEXT; *left = (size_t)standin_free_bytes; *total = 1UL << 34; return CUDA_SUCCESS; }
API cuMemGetAddressRange(CUdeviceptr *start, size_t *bytes, CUdeviceptr address)
{
  START_IN_CONTEXT;
  struct allocation **found = find((void *)address, 1);
  if (!found || (*found)->is_host) return CUDA_ERROR_INVALID_VALUE;
  *start = (CUdeviceptr)(*found)->start;
  *bytes = (*found)->bytes;
  return CUDA_SUCCESS;
}

/* Streams and events. */
static void run(struct work *work)
{
  struct timespec now;
  clock_gettime(CLOCK_MONOTONIC, &now);
  if (work->event) work->event->at_ms = now.tv_sec * 1e3 + now.tv_nsec / 1e6;
  else if (work->call) work->call(work->to);
  else memcpy(work->to, work->from, work->bytes);
}
static CUresult put(CUstream stream, struct work work)
{
  if (!stream) return CUDA_ERROR_NOT_SUPPORTED; /* the default stream, which nothing of ours uses */
  CUgraph graph = stream->captured;
  if (!graph) return run(&work), CUDA_SUCCESS;
  graph->works = realloc(graph->works, (graph->count + 1) * sizeof work);
  graph->works[graph->count++] = work;
  return CUDA_SUCCESS;
}
static CUresult copy(CUstream stream, void *to, const void *from, size_t bytes, const void *device, const void *host)
{
  struct allocation **on_device = find(device, bytes), **on_host = find(host, bytes);
  if (!on_device || (*on_device)->is_host) return CUDA_ERROR_INVALID_VALUE;
  standin_pageable_copies += !on_host || !(*on_host)->is_host;
  return put(stream, (struct work){.to = to, .from = from, .bytes = bytes});
}
API cuMemcpyHtoDAsync(CUdeviceptr to, const void *from, size_t bytes, CUstream stream)
{ START_IN_CONTEXT; return copy(stream, (void *)to, from, bytes, (void *)to, from); }
API cuMemcpyDtoHAsync(void *to, CUdeviceptr from, size_t bytes, CUstream stream)
{ START_IN_CONTEXT; return copy(stream, to, (void *)from, bytes, (void *)from, to); }
API cuLaunchHostFunc(CUstream stream, CUhostFn call, void *data)
{ START_IN_CONTEXT; return put(stream, (struct work){.call = call, .to = data}); }
API cuStreamCreate(CUstream *stream, unsigned flags)
{
  START_IN_CONTEXT;
  standin_stream_flags = flags;
  standin_streams++;
  *stream = calloc(1, sizeof **stream);
  return CUDA_SUCCESS;
}
API cuStreamDestroy(CUstream stream) { START_IN_CONTEXT; standin_streams--; free(stream); return CUDA_SUCCESS; }
API cuStreamSynchronize(CUstream stream)
{
  START_IN_CONTEXT;
  if (!stream || !stream->captured) return CUDA_SUCCESS;
  stream->captured->is_broken = 1;
  return CUDA_ERROR_STREAM_CAPTURE_UNSUPPORTED;
}
API cuStreamWaitEvent(CUstream stream, CUevent event, unsigned flags)
{ START_IN_CONTEXT; (void)stream; (void)event; (void)flags; return CUDA_SUCCESS; } /* all earlier work is done */
API cuEventCreate(CUevent *event, unsigned flags)
{
  START_IN_CONTEXT;
  (void)flags;
  standin_events++;
  *event = malloc(sizeof **event);
  (*event)->at_ms = -1;
  return CUDA_SUCCESS;
}
API cuEventDestroy(CUevent event) { START_IN_CONTEXT; standin_events--; free(event); return CUDA_SUCCESS; }
API cuEventRecord(CUevent event, CUstream stream)
{ START_IN_CONTEXT; return put(stream, (struct work){.event = event}); }
API cuEventSynchronize(CUevent event) { START_IN_CONTEXT; (void)event; return CUDA_SUCCESS; }
API cuEventElapsedTime(float *milliseconds, CUevent start, CUevent end)
{
  START;
  if (start->at_ms < 0 || end->at_ms < 0) return CUDA_ERROR_INVALID_HANDLE;
  *milliseconds = (float)(end->at_ms - start->at_ms);
  return CUDA_SUCCESS;
}

/* Capture and graphs. */
API cuStreamBeginCapture(CUstream stream, CUstreamCaptureMode mode)
{
  START_IN_CONTEXT;
  if (mode != CU_STREAM_CAPTURE_MODE_THREAD_LOCAL) return CUDA_ERROR_NOT_SUPPORTED;
  if (!stream) return CUDA_ERROR_STREAM_CAPTURE_UNSUPPORTED;
  if (stream->captured) return CUDA_ERROR_ILLEGAL_STATE;
  stream->captured = calloc(1, sizeof *stream->captured);
  standin_captures++;
  standin_graphs++;
  return CUDA_SUCCESS;
}
static void drop(CUgraph graph) { standin_graphs--; free(graph->works); free(graph); }
API cuStreamEndCapture(CUstream stream, CUgraph *graph)
{
  if (!stream->captured) return CUDA_ERROR_ILLEGAL_STATE;
  *graph = stream->captured;
  stream->captured = NULL;
  standin_captures--;
  if (!(*graph)->is_broken && strcmp(standin_fails, __func__)) return CUDA_SUCCESS;
  drop(*graph);
  *graph = NULL;
  return CUDA_ERROR_STREAM_CAPTURE_INVALIDATED;
}
API cuGraphInstantiateWithFlags(CUgraphExec *made, CUgraph graph, unsigned long long flags)
{
  START_IN_CONTEXT;
  (void)flags;
  CUgraph own = malloc(sizeof *own);
  *own = *graph;
  own->works = malloc((graph->count + 1) * sizeof *own->works);
  memcpy(own->works, graph->works, graph->count * sizeof *own->works);
  standin_nodes = graph->count;
  standin_graphs++;
  *made = (CUgraphExec)own;
  return CUDA_SUCCESS;
}
API cuGraphDestroy(CUgraph graph) { START; drop(graph); return CUDA_SUCCESS; }
API cuGraphExecDestroy(CUgraphExec graph) { START; drop((CUgraph)graph); return CUDA_SUCCESS; }
API cuGraphLaunch(CUgraphExec graph, CUstream stream)
{
  START_IN_CONTEXT;
  standin_launches++;
  for (long i = 0; i < ((CUgraph)graph)->count; i++) put(stream, ((CUgraph)graph)->works[i]);
  return CUDA_SUCCESS;
}

/* cuda-python asks for functions by their names without the version of their interface. */
API cuGetProcAddress_v2(const char *name, void **found, int version, cuuint64_t flags, CUdriverProcAddressQueryResult *status)
{
  char versioned[128];
  (void)version, (void)flags;
  *found = NULL;
  for (int number = 4; number > 0 && !*found; number--) {
    snprintf(versioned, sizeof versioned, number > 1 ? "%s_v%d" : "%s", name, number);
    *found = dlsym(RTLD_DEFAULT, versioned);
  }
  if (status) *status = *found ? CU_GET_PROC_ADDRESS_SUCCESS : CU_GET_PROC_ADDRESS_SYMBOL_NOT_FOUND;
  return *found ? CUDA_SUCCESS : CUDA_ERROR_NOT_FOUND;
}

__attribute__((constructor)) static void start(void) { setenv("FAKE_GPUS", "Stand-in GPU:8:0", 0); }
__attribute__((destructor)) static void report(void)
{
  const char *path = getenv("STANDIN_REPORT");
  FILE *file = path ? fopen(path, "w") : NULL;
  if (!file) return;
  fprintf(file, "{\"allocations\": %ld, \"frees\": %ld, \"streams\": %ld, \"events\": %ld, \"graphs\": %ld, \"contexts\": %ld}\n",
          standin_allocations, standin_frees, standin_streams, standin_events, standin_graphs, standin_contexts);
  fclose(file);
}
