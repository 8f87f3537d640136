/* One rank fails (the environment says where): all get the same class and the text that names the server, nobody hangs. Arguments: the
 * call that fails, the rank, where all ranks learn of it (open, sync, close, or a collective data call), and the form of the call. */
#include "check.h"

static int rank, size;

/* A write of this rank's number, collectively, in one of the forms that wait for the other ranks. */
static int write_all(MPI_File file, const char *form) {
    int code;
    if (strcmp(form, "split") == 0) {
        OK(MPI_File_write_at_all_begin(file, 4 * rank, &rank, 1, MPI_INT));
        return MPI_File_write_at_all_end(file, &rank, MPI_STATUS_IGNORE);
    }
    if (strcmp(form, "pointer") == 0) {
        OK(MPI_File_seek(file, 4 * rank, MPI_SEEK_SET));
        return MPI_File_write_all(file, &rank, 1, MPI_INT, MPI_STATUS_IGNORE);
    }
    code = MPI_File_write_at_all(file, 4 * rank, &rank, 1, MPI_INT, MPI_STATUS_IGNORE);
    return code;
}

/* Writes that are not collective: no rank learns of the failure before all do, for the others may be waiting for it. */
static void write_alone(MPI_File file, int failing) {
    static int many[1 << 16];
    int back = -1;
    MPI_Offset bytes;
    MPI_Request request;
    OK(MPI_File_write_at(file, 4 * rank, &rank, 1, MPI_INT, MPI_STATUS_IGNORE));
    MPI_Barrier(MPI_COMM_WORLD);
    OK(MPI_File_iwrite_at(file, 64 + rank * (MPI_Offset)sizeof many, many, 1 << 16, MPI_INT, &request));
    OK(MPI_Wait(&request, MPI_STATUS_IGNORE));
    OK(MPI_File_get_size(file, &bytes));
    /* But nobody is told that bytes are there which are not. */
    int code = MPI_File_read_at(file, 4 * rank, &back, 1, MPI_INT, MPI_STATUS_IGNORE);
    if (rank == failing)
        FAILS(code, MPI_ERR_IO, "server 1 is lost");
    else
        CHECK(code == MPI_SUCCESS && back == rank);
}

/* The same class on every rank, and the server's name in every rank's text. */
static void same(int code) {
    int class = class_of(code), lowest, highest;
    CHECK(class != MPI_SUCCESS);
    MPI_Allreduce(&class, &lowest, 1, MPI_INT, MPI_MIN, MPI_COMM_WORLD);
    MPI_Allreduce(&class, &highest, 1, MPI_INT, MPI_MAX, MPI_COMM_WORLD);
    CHECK(lowest == highest);
    FAILS(code, class, "server 1 is lost");
}

int main(int argc, char **argv) {
    MPI_File file;
    int code, back;
    OK(MPI_Init(&argc, &argv));
    MPI_Comm_rank(MPI_COMM_WORLD, &rank);
    MPI_Comm_size(MPI_COMM_WORLD, &size);
    const char *call = argv[2], *at = argv[4], *form = argc > 5 ? argv[5] : "explicit";
    int failing = atoi(argv[3]);
    code = MPI_File_open(MPI_COMM_WORLD, "/talea/run/agree", MPI_MODE_CREATE | MPI_MODE_RDWR, MPI_INFO_NULL, &file);
    if (strcmp(at, "open") == 0) {
        same(code);
        CHECK(file == MPI_FILE_NULL);
        OK(MPI_Finalize());
        return 0;
    }
    OK(code);
    if (strcmp(call, "write") == 0 && strcmp(form, "alone") == 0) {
        write_alone(file, failing);
    } else if (strcmp(call, "write") == 0 && strcmp(form, "later") == 0) {
        write_alone(file, failing);
        same(write_all(file, "explicit"));
    } else if (strcmp(call, "write") == 0 && strcmp(form, "atomic") == 0) {
        /* Each write is told at once where it counts at once. */
        OK(MPI_File_set_atomicity(file, 1));
        code = MPI_File_write_at(file, 4 * rank, &rank, 1, MPI_INT, MPI_STATUS_IGNORE);
        CHECK((code != MPI_SUCCESS) == (rank == failing));
    } else if (strcmp(call, "size") == 0) {
        MPI_Offset bytes;
        OK(MPI_File_get_size(file, &bytes));
    } else if (strcmp(call, "write") == 0) {
        same(write_all(file, form));
    } else {
        OK(write_all(file, form));
    }
    if (strcmp(call, "read") == 0) {
        same(MPI_File_read_at_all(file, 4 * rank, &back, 1, MPI_INT, MPI_STATUS_IGNORE));
        OK(MPI_File_close(&file));
    } else if (strcmp(at, "sync") == 0) {
        code = MPI_File_sync(file);
        if (strcmp(call, "write") == 0 && strcmp(form, "alone") != 0) {
            CHECK(class_of(code) != MPI_SUCCESS);
        } else {
            same(code);
        }
        MPI_File_close(&file);
    } else {
        code = MPI_File_close(&file);
        CHECK(class_of(code) != MPI_SUCCESS);
        CHECK(file == MPI_FILE_NULL);
    }
    OK(MPI_Finalize());
    return 0;
}
