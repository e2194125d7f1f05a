/* One inference by OpenVINO's C API, on what the input tensor holds: openvino LIBRARY MODEL.xml prints the peak of the process in kB. */
#include "start.h"

static void check(int status, const char *what) {
    if (status) fail(what, "failed");
}

int main(int count, char **words) {
    if (count != 3) fail("usage", "openvino LIBRARY MODEL");
    void *library = open_library(words[1]), *core, *model, *compiled, *request;
    check(((int (*)(void **))symbol(library, "ov_core_create"))(&core), "ov_core_create");
    check(((int (*)(void *, const char *, const char *, void **))symbol(library, "ov_core_read_model"))(core, words[2], NULL, &model),
        "ov_core_read_model");
    check(((int (*)(void *, void *, const char *, size_t, void **, ...))symbol(library, "ov_core_compile_model"))(
        core, model, "CPU", 4, &compiled, "INFERENCE_NUM_THREADS", "1", "NUM_STREAMS", "1"), "ov_core_compile_model");
    check(((int (*)(void *, void **))symbol(library, "ov_compiled_model_create_infer_request"))(compiled, &request),
        "ov_compiled_model_create_infer_request");
    check(((int (*)(void *))symbol(library, "ov_infer_request_infer"))(request), "ov_infer_request_infer");
    print_peak();
    return 0;
}
