/* Error handlers: set, get, call, the default for new files, MPI_ERRORS_ARE_FATAL. One rank. */
#include "check.h"

static int called, last_class;
static MPI_File last_file;

static void handler(MPI_File *file, int *code, ...) {
    called++;
    last_file = *file;
    last_class = class_of(*code);
}

int main(int argc, char **argv) {
    MPI_File file, other;
    MPI_Errhandler own, got;
    char byte;
    OK(MPI_Init(&argc, &argv));
    OK(MPI_File_create_errhandler(handler, &own));
    OK(MPI_File_open(MPI_COMM_SELF, "/talea/run/handlers", MPI_MODE_CREATE | MPI_MODE_WRONLY, MPI_INFO_NULL, &file));
    OK(MPI_File_get_errhandler(file, &got));
    CHECK(got == MPI_ERRORS_RETURN);
    CHECK(MPI_File_read_at(file, 0, &byte, 1, MPI_BYTE, MPI_STATUS_IGNORE) != MPI_SUCCESS && called == 0);
    OK(MPI_File_set_errhandler(file, own));
    OK(MPI_File_get_errhandler(file, &got));
    CHECK(got == own);
    CHECK(class_of(MPI_File_read_at(file, 0, &byte, 1, MPI_BYTE, MPI_STATUS_IGNORE)) == MPI_ERR_ACCESS);
    CHECK(called == 1 && last_file == file && last_class == MPI_ERR_ACCESS);
    OK(MPI_File_call_errhandler(file, MPI_ERR_IO));
    CHECK(called == 2 && last_class == MPI_ERR_IO);
    /* The handler of MPI_FILE_NULL is for failed opens and for files opened later. */
    OK(MPI_File_set_errhandler(MPI_FILE_NULL, own));
    CHECK(class_of(MPI_File_open(MPI_COMM_SELF, "/talea/run/none", MPI_MODE_RDONLY, MPI_INFO_NULL, &other)) == MPI_ERR_NO_SUCH_FILE);
    CHECK(called == 3 && last_file == MPI_FILE_NULL);
    OK(MPI_File_open(MPI_COMM_SELF, "/talea/run/later", MPI_MODE_CREATE | MPI_MODE_WRONLY, MPI_INFO_NULL, &other));
    CHECK(MPI_File_read_at(other, 0, &byte, 1, MPI_BYTE, MPI_STATUS_IGNORE) != MPI_SUCCESS && called == 4);
    OK(MPI_File_close(&other));
    OK(MPI_File_set_errhandler(MPI_FILE_NULL, MPI_ERRORS_RETURN));
    /* What get_errhandler gives is the program's to free, and a handler lives as long as a file that uses it. */
    for (int i = 0; i < 3; i++) {
        OK(MPI_File_get_errhandler(file, &got));
        CHECK(got == own);
        OK(MPI_Errhandler_free(&got));
        CHECK(got == MPI_ERRHANDLER_NULL);
    }
    called = 0;
    MPI_Errhandler brief;
    OK(MPI_File_create_errhandler(handler, &brief));
    OK(MPI_File_set_errhandler(file, brief));
    OK(MPI_Errhandler_free(&brief));
    CHECK(brief == MPI_ERRHANDLER_NULL);
    CHECK(MPI_File_read_at(file, 0, &byte, 1, MPI_BYTE, MPI_STATUS_IGNORE) != MPI_SUCCESS && called == 1);
    OK(MPI_File_get_errhandler(file, &got));
    OK(MPI_File_set_errhandler(file, own));
    OK(MPI_File_set_errhandler(file, got));
    CHECK(MPI_File_read_at(file, 0, &byte, 1, MPI_BYTE, MPI_STATUS_IGNORE) != MPI_SUCCESS && called == 2);
    OK(MPI_Errhandler_free(&got));
    OK(MPI_File_set_errhandler(file, own));
    if (argc > 2) {
        OK(MPI_File_set_errhandler(file, MPI_ERRORS_ARE_FATAL));
        MPI_File_read_at(file, 0, &byte, 1, MPI_BYTE, MPI_STATUS_IGNORE);
        return 0;
    }
    OK(MPI_File_set_errhandler(file, MPI_ERRORS_RETURN));
    /* Also MPI's own handlers, whose references Open MPI counts: it would free them at the end. */
    for (int i = 0; i < 100; i++) {
        OK(MPI_File_get_errhandler(file, &got));
        OK(MPI_Errhandler_free(&got));
    }
    OK(MPI_File_close(&file));
    OK(MPI_Errhandler_free(&own));
    OK(MPI_Finalize());
    return 0;
}
