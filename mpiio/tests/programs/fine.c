/* A 3-D block decomposition with inner runs of eight bytes, collectively written and read back. Arguments: directory, value of
 * romio_cb_write and romio_cb_read, edge of the cube in doubles, rounds. Prints the seconds of the calls. */
#define _GNU_SOURCE
#include "check.h"
#include <dlfcn.h>

/* What count.c counts; null without it. */
static int *others, *exchanges, *messages;
static long *bytes;

/* A call of this rank made so many of the driver's MPI calls, and sent at most so many bytes to other ranks. */
static void made(const char *what, int reductions, int swaps, int pairs, long most_bytes) {
    if (!others) return;
    if (*others != reductions || *exchanges != swaps || *messages != pairs || *bytes > most_bytes) {
        fprintf(stderr, "%s: %d reductions, %d exchanges, %d messages, %ld bytes\n", what, *others, *exchanges, *messages, *bytes);
        MPI_Abort(MPI_COMM_WORLD, 3);
    }
}

static void begin_counting(void) {
    if (others) *others = *exchanges = *messages = 0, *bytes = 0;
}

int main(int argc, char **argv) {
    MPI_File file;
    MPI_Info info;
    MPI_Datatype block;
    int rank, size;
    OK(MPI_Init(&argc, &argv));
    MPI_Comm_rank(MPI_COMM_WORLD, &rank);
    MPI_Comm_size(MPI_COMM_WORLD, &size);
    others = dlsym(RTLD_DEFAULT, "counted_others");
    exchanges = dlsym(RTLD_DEFAULT, "counted_exchanges");
    messages = dlsym(RTLD_DEFAULT, "counted_messages");
    bytes = dlsym(RTLD_DEFAULT, "counted_bytes");
    int buffered = argc <= 2 || strcmp(argv[2], "disable") != 0;
    int edge = argc > 3 ? atoi(argv[3]) : 16, rounds = argc > 4 ? atoi(argv[4]) : 1;
    CHECK(edge % size == 0);
    /* Cut along the fastest dimension into columns one double wide: rank r has every size-th one. */
    int distributions[] = {MPI_DISTRIBUTE_NONE, MPI_DISTRIBUTE_NONE, MPI_DISTRIBUTE_CYCLIC}, sizes[] = {edge, edge, edge};
    int arguments[] = {MPI_DISTRIBUTE_DFLT_DARG, MPI_DISTRIBUTE_DFLT_DARG, 1}, grid[] = {1, 1, size};
    OK(MPI_Type_create_darray(size, rank, 3, sizes, distributions, arguments, grid, MPI_ORDER_C, MPI_DOUBLE, &block));
    OK(MPI_Type_commit(&block));
    int count = edge * edge * (edge / size);
    double *values = malloc(count * sizeof *values), *back = malloc(count * sizeof *back), seconds[2] = {0, 0};
    OK(MPI_Info_create(&info));
    OK(MPI_Info_set(info, "romio_cb_write", argc > 2 ? argv[2] : "automatic"));
    OK(MPI_Info_set(info, "romio_cb_read", argc > 2 ? argv[2] : "automatic"));
    const char *path = argc > 5 ? argv[5] : "/talea/run/fine";
    OK(MPI_File_open(MPI_COMM_WORLD, path, MPI_MODE_CREATE | MPI_MODE_RDWR, info, &file));
    OK(MPI_File_set_view(file, 0, MPI_DOUBLE, block, "native", MPI_INFO_NULL));
    for (int round = 0; round < rounds; round++) {
        MPI_Status status;
        int got;
        for (int i = 0; i < count; i++) values[i] = 1000000.0 * rank + i + round;
        MPI_Barrier(MPI_COMM_WORLD);
        seconds[0] -= MPI_Wtime();
        begin_counting();
        OK(MPI_File_write_at_all(file, 0, values, count, MPI_DOUBLE, &status));
        /* The decision and the outcome; sizes, and a message for each pair: the data, and where they go in a few numbers. */
        long data = count * (long)sizeof *values;
        if (buffered) made("write", 2, 1, size - 1, data + 64 * size);
        else made("write", 2, 0, 0, 0);
        seconds[0] += MPI_Wtime();
        OK(MPI_Get_count(&status, MPI_DOUBLE, &got));
        CHECK(got == count);
        MPI_Barrier(MPI_COMM_WORLD);
        seconds[1] -= MPI_Wtime();
        begin_counting();
        OK(MPI_File_read_at_all(file, 0, back, count, MPI_DOUBLE, &status));
        /* Questions and answers. The file is one chunk: rank 0 answers for all of it. */
        if (buffered) made("read", 2, 2, 2 * (size - 1), rank == 0 ? size * (data + 64) : 64 * size);
        else made("read", 2, 0, 0, 0);
        seconds[1] += MPI_Wtime();
        OK(MPI_Get_count(&status, MPI_DOUBLE, &got));
        CHECK(got == count && memcmp(values, back, count * sizeof *back) == 0);
    }
    OK(MPI_File_close(&file));
    OK(MPI_Info_free(&info));
    OK(MPI_Type_free(&block));
    if (rank == 0 && argc > 3) printf("write %.4f s, read %.4f s a call of %.1f MiB\n", seconds[0] / rounds, seconds[1] / rounds, size * count / 131072.0);
    OK(MPI_Finalize());
    return 0;
}
