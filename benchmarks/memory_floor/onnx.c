/* One inference by ONNX Runtime's C API, on zeros: onnx LIBRARY MODEL INPUT OUTPUT DIM... prints the peak of the process in kB.
   The functions are taken by their place in OrtApi, which never changes: the API only ever appends. */
#include "start.h"

enum { CREATE_ENV = 3, CREATE_SESSION = 7, RUN = 9, CREATE_OPTIONS = 10, SET_THREADS = 24, CREATE_TENSOR = 49, CREATE_MEMORY_INFO = 69 };
enum { OLDEST_API = 1, WARNING = 2, FLOAT = 1, DEVICE_ALLOCATOR = 0, DEFAULT_MEMORY = 0 };

typedef struct { void *const *(*get)(uint32_t version); const char *(*version)(void); } Base;

static void check(void *status, const char *what) {
    if (status) fail(what, "failed");
}

int main(int count, char **words) {
    if (count < 6) fail("usage", "onnx LIBRARY MODEL INPUT OUTPUT DIM...");
    const Base *base = ((const Base *(*)(void))symbol(open_library(words[1]), "OrtGetApiBase"))();
    void *const *api = base->get(OLDEST_API);
    void *environment, *options, *session, *memory, *input, *output = NULL;
    int64_t shape[8], size = 1;
    int rank = count - 5;
    for (int axis = 0; axis < rank && axis < 8; axis++) size *= shape[axis] = atoll(words[5 + axis]);
    float *zeros = calloc(size, sizeof *zeros);

    check(((void *(*)(int, const char *, void **))api[CREATE_ENV])(WARNING, "floor", &environment), "CreateEnv");
    check(((void *(*)(void **))api[CREATE_OPTIONS])(&options), "CreateSessionOptions");
    check(((void *(*)(void *, int))api[SET_THREADS])(options, 1), "SetIntraOpNumThreads");
    check(((void *(*)(void *, const char *, void *, void **))api[CREATE_SESSION])(environment, words[2], options, &session), "CreateSession");
    check(((void *(*)(int, int, void **))api[CREATE_MEMORY_INFO])(DEVICE_ALLOCATOR, DEFAULT_MEMORY, &memory), "CreateCpuMemoryInfo");
    check(((void *(*)(void *, void *, size_t, const int64_t *, size_t, int, void **))api[CREATE_TENSOR])(
        memory, zeros, size * sizeof *zeros, shape, rank, FLOAT, &input), "CreateTensorWithDataAsOrtValue");
    check(((void *(*)(void *, void *, char **, void **, size_t, char **, size_t, void **))api[RUN])(
        session, NULL, &words[3], &input, 1, &words[4], 1, &output), "Run");
    print_peak();
    return 0;
}
