/*
 * Writes and reads one file collectively, for ever, until a call fails; then makes one more call of each kind.  What it checks is how
 * they fail: the same error class on all ranks, a text that names the server on each of them, and every call within its deadline.
 *
 *   collective FILE WORD SECONDS     WORD must be in each error's text; SECONDS is the deadline of a call
 *
 * Says "step N" after each sync.  Exit status: 42 when calls failed as they should, 1 when they did not.
 */
#include <mpi.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define CELLS (128 * 1024)
/* What a loaded machine may add to a deadline: the ranks' own wait for each other. */
#define SLACK_SECONDS 10

static int rank, ranks, failures, wrong;
static const char *word;
static double deadline;
static long *buffer;

/* Looks at one call's outcome on all ranks; whether it succeeded on all of them. */
static int judge(const char *call, int code, double began, int collective)
{
    char text[MPI_MAX_ERROR_STRING] = "";
    int length, class;
    double seconds = MPI_Wtime() - began;
    struct { int class, rank; } mine, most, least;
    MPI_Error_class(code, &class);
    mine.class = class, mine.rank = rank;
    MPI_Allreduce(&mine, &most, 1, MPI_2INT, MPI_MAXLOC, MPI_COMM_WORLD);
    MPI_Allreduce(&mine, &least, 1, MPI_2INT, MPI_MINLOC, MPI_COMM_WORLD);
    if (seconds > deadline + SLACK_SECONDS) {
        printf("rank %d: %s took %.1f s, with a deadline of %.0f s\n", rank, call, seconds, deadline);
        wrong = 1;
    }
    if (most.class == MPI_SUCCESS)
        return 1;
    failures++;
    if (collective && most.class != least.class) {
        if (rank == 0)
            printf("%s: class %d on rank %d, but %d on rank %d\n", call, most.class, most.rank, least.class, least.rank);
        wrong = 1;
    }
    if (code != MPI_SUCCESS) {
        MPI_Error_string(code, text, &length);
        if (strstr(text, word) == NULL) {
            printf("rank %d: %s does not name %s: %s\n", rank, call, word, text);
            wrong = 1;
        }
    }
    if (rank == most.rank)
        printf("%s failed after %.1f s with class %d on %s: %s\n", call, seconds, class, collective ? "all ranks" : "some ranks", text);
    fflush(stdout);
    return 0;
}

/* One round of calls: all of them, or, while all goes well, up to the first that fails. */
static int calls(MPI_File file, int all)
{
    MPI_Offset at = (MPI_Offset)rank * CELLS * (MPI_Offset)sizeof(long);
    MPI_Request request;
    MPI_Status status;
    double began;
    int ok = 1, code;
#define CALL(collective, what) (began = MPI_Wtime(), code = (what), (ok = judge(#what, code, began, collective) && ok) || all)
    if (!CALL(1, MPI_File_write_at_all(file, at, buffer, CELLS, MPI_LONG, MPI_STATUS_IGNORE)))
        return 0;
    if (!CALL(1, MPI_File_read_at_all(file, at, buffer, CELLS, MPI_LONG, &status)))
        return 0;
    MPI_File_write_at_all_begin(file, at, buffer, CELLS, MPI_LONG);
    if (!CALL(1, MPI_File_write_at_all_end(file, buffer, &status)))
        return 0;
    request = MPI_REQUEST_NULL;
    if (!CALL(0, MPI_File_iwrite_at(file, at, buffer, CELLS, MPI_LONG, &request)))
        return 0;
    if (request != MPI_REQUEST_NULL)
        MPI_Wait(&request, MPI_STATUS_IGNORE);
    (void)CALL(1, MPI_File_sync(file));
    return ok;
}

int main(int argc, char **argv)
{
    MPI_File file, again;
    double began;
    int code;
    MPI_Init(&argc, &argv);
    MPI_Comm_rank(MPI_COMM_WORLD, &rank);
    MPI_Comm_size(MPI_COMM_WORLD, &ranks);
    if (argc != 4) {
        fprintf(stderr, "usage: collective FILE WORD SECONDS\n");
        MPI_Abort(MPI_COMM_WORLD, 2);
    }
    word = argv[2], deadline = atof(argv[3]);
    MPI_Comm_set_errhandler(MPI_COMM_WORLD, MPI_ERRORS_RETURN); /* MPI_Wait raises a request's errors there */
    buffer = calloc(CELLS, sizeof(long));
    if (buffer == NULL || MPI_File_open(MPI_COMM_WORLD, argv[1], MPI_MODE_CREATE | MPI_MODE_RDWR, MPI_INFO_NULL, &file)) {
        printf("the file cannot be opened\n");
        MPI_Abort(MPI_COMM_WORLD, 1);
    }
    for (long step = 1; calls(file, 0); step++)
        if (rank == 0)
            printf("step %ld\n", step), fflush(stdout);
    calls(file, 1);
    began = MPI_Wtime();
    code = MPI_File_open(MPI_COMM_WORLD, argv[1], MPI_MODE_RDWR, MPI_INFO_NULL, &again);
    if (judge("MPI_File_open of the same file", code, began, 1))
        MPI_File_close(&again);
    began = MPI_Wtime();
    code = MPI_File_close(&file);
    judge("MPI_File_close", code, began, 1);
    MPI_Allreduce(MPI_IN_PLACE, &wrong, 1, MPI_INT, MPI_MAX, MPI_COMM_WORLD);
    MPI_Finalize();
    return wrong ? 1 : 42;
}
