/*
 * Which steps a program's calls make, seen as any other process sees them: by opening /talea/run/.talea/steps/N/FILE.
 * For programs that are alone in a fresh system, so that steps count from 1.
 */
#ifndef STEPS_H
#define STEPS_H
#include <mpi.h>
#include <stdio.h>
#include <stdlib.h>

static int rank, failures, seen;

static void step_path(char path[256], int step, const char *file)
{
    snprintf(path, 256, "/talea/run/.talea/steps/%d/%s", step, file);
}

/* Last step of the container that holds the file. */
static int last_step(const char *file)
{
    char path[256];
    MPI_File handle;
    for (int step = seen + 1;; step++) {
        step_path(path, step, file);
        if (MPI_File_open(MPI_COMM_SELF, path, MPI_MODE_RDONLY, MPI_INFO_NULL, &handle) != MPI_SUCCESS)
            return step - 1;
        MPI_File_close(&handle);
    }
}

/* How a library reads the value that a step's file holds; negative if the file does not open. */
typedef int (*value_fn)(const char *path);

/*
 * After `call`: at least one new step and at most `most`, none if `most` is 0; each opens, and the newest holds `value` (nothing is
 * asked of their contents if that is negative).
 */
static void after(const char *call, const char *file, int most, value_fn value_of, int value)
{
    MPI_Barrier(MPI_COMM_WORLD);
    if (rank == 0) {
        char path[256];
        int last = last_step(file), made = last - seen;
        step_path(path, last, file);
        int got = made > 0 && value >= 0 ? value_of(path) : value;
        int good = made <= most && (made > 0 || most == 0) && got == value;
        for (int step = seen + 1; value >= 0 && step < last; step++) {
            step_path(path, step, file);
            good = good && value_of(path) >= 0;
        }
        printf("%-28s %d new step%s up to %d, value %d%s\n", call, made, made == 1 ? "" : "s", last, got, good ? "" : "   WRONG");
        failures += !good;
        seen = last;
    }
    MPI_Bcast(&seen, 1, MPI_INT, 0, MPI_COMM_WORLD);
    MPI_Barrier(MPI_COMM_WORLD);
}

static int steps_ended(void)
{
    MPI_Bcast(&failures, 1, MPI_INT, 0, MPI_COMM_WORLD);
    if (rank == 0 && failures == 0)
        printf("No Errors\n");
    MPI_Finalize();
    return failures != 0;
}
#endif
