/* One inference by LiteRT's C API, on what the input buffers hold: tflite LIBRARY MODEL prints the peak of the process in kB. */
#include "start.h"

enum { CPU = 1, MOST = 8 };

static void *library;
static void *environment;

static void check(int status, const char *what) {
    if (status) fail(what, "failed");
}

/* Buffers for all inputs or all outputs of the compiled model; returns how many. */
static size_t buffers(void *graph, void *compiled, const char *count, const char *tensor, const char *requirements, void **made) {
    size_t number = 0;
    check(((int (*)(void *, size_t *))symbol(library, count))(graph, &number), count);
    if (number > MOST) fail(count, "more than 8");
    for (size_t each = 0; each < number; each++) {
        void *found, *needed;
        char type[512]; /* LiteRtRankedTensorType, which only LiteRT looks into */
        check(((int (*)(void *, size_t, void **))symbol(library, tensor))(graph, each, &found), tensor);
        check(((int (*)(void *, void *))symbol(library, "LiteRtGetRankedTensorType"))(found, type), "LiteRtGetRankedTensorType");
        check(((int (*)(void *, size_t, size_t, void **))symbol(library, requirements))(compiled, 0, each, &needed), requirements);
        check(((int (*)(void *, void *, void *, void **))symbol(library, "LiteRtCreateManagedTensorBufferFromRequirements"))(
            environment, type, needed, &made[each]), "LiteRtCreateManagedTensorBufferFromRequirements");
    }
    return number;
}

int main(int count, char **words) {
    if (count != 3) fail("usage", "tflite LIBRARY MODEL");
    library = open_library(words[1]);
    void *model, *options, *compiled, *graph, *given[MOST], *taken[MOST];
    size_t main_graph;
    check(((int (*)(int, void *, void **))symbol(library, "LiteRtCreateEnvironment"))(0, NULL, &environment), "LiteRtCreateEnvironment");
    check(((int (*)(void *, const char *, void **))symbol(library, "LiteRtCreateModelFromFile"))(environment, words[2], &model),
        "LiteRtCreateModelFromFile");
    check(((int (*)(void **))symbol(library, "LiteRtCreateOptions"))(&options), "LiteRtCreateOptions");
    check(((int (*)(void *, int))symbol(library, "LiteRtSetOptionsHardwareAccelerators"))(options, CPU), "LiteRtSetOptionsHardwareAccelerators");
    check(((int (*)(void *, void *, void *, void **))symbol(library, "LiteRtCreateCompiledModel"))(environment, model, options, &compiled),
        "LiteRtCreateCompiledModel");
    check(((int (*)(void *, size_t *))symbol(library, "LiteRtGetMainModelSubgraphIndex"))(model, &main_graph), "LiteRtGetMainModelSubgraphIndex");
    check(((int (*)(void *, size_t, void **))symbol(library, "LiteRtGetModelSubgraph"))(model, main_graph, &graph), "LiteRtGetModelSubgraph");
    size_t inputs = buffers(graph, compiled, "LiteRtGetNumSubgraphInputs", "LiteRtGetSubgraphInput",
        "LiteRtGetCompiledModelInputBufferRequirements", given);
    size_t outputs = buffers(graph, compiled, "LiteRtGetNumSubgraphOutputs", "LiteRtGetSubgraphOutput",
        "LiteRtGetCompiledModelOutputBufferRequirements", taken);
    check(((int (*)(void *, size_t, size_t, void **, size_t, void **))symbol(library, "LiteRtRunCompiledModel"))(
        compiled, 0, inputs, given, outputs, taken), "LiteRtRunCompiledModel");
    print_peak();
    return 0;
}
