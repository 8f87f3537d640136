/* What talea_mpi.F90 calls: the functions of talea_mpi.h with Fortran's handles. Compile it with the program's own MPI; it asks
 * for talea.h beside it, and finds libtalea when it is first needed: beside the driver, or where the loader looks. */
#ifndef _GNU_SOURCE
#define _GNU_SOURCE /* for dladdr */
#endif
#include "talea.h"

#include "talea_mpi.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

int talea_mpi_f_epoch_begin(MPI_Fint comm, const char *container, void **epoch) {
    return talea_mpi_epoch_begin(MPI_Comm_f2c(comm), container, (talea_mpi_epoch_t *)epoch);
}

int talea_mpi_f_epoch_file(void *epoch, MPI_Fint file) {
    return talea_mpi_epoch_file((talea_mpi_epoch_t)epoch, MPI_File_f2c(file));
}

int talea_mpi_f_epoch_commit(void *epoch, uint64_t *step) {
    return talea_mpi_epoch_commit((talea_mpi_epoch_t)epoch, NULL, 0, step);
}

int talea_mpi_f_epoch_end(void **epoch) { return talea_mpi_epoch_end((talea_mpi_epoch_t *)epoch); }

/* ---- following ---- */

enum { CONNECT_MS = 30000, TEXT_BYTES = 512 };

/* A communicator that follows: rank 0 asks, all are told. */
struct follower {
    MPI_Comm comm;
    talea_subscription_t *subscription;
    char text[TEXT_BYTES]; /* of the last error, the same on all ranks */
};

/* A function of libtalea: of the one that the program is linked with, that lies beside the driver, or that the loader finds. */
static void *found(const char *name) {
    static void *library;
    Dl_info driver;
    char path[4096];
    void *function = dlsym(RTLD_DEFAULT, name);
    if (function) return function;
    if (!library) {
        void *driver_function = dlsym(RTLD_DEFAULT, "talea_mpi_epoch_begin");
        if (driver_function && dladdr(driver_function, &driver) && driver.dli_fname) {
            const char *slash = strrchr(driver.dli_fname, '/');
            int directory_bytes = slash ? (int)(slash - driver.dli_fname) + 1 : 0;
            snprintf(path, sizeof path, "%.*slibtalea.so.0", directory_bytes, driver.dli_fname);
            library = dlopen(path, RTLD_NOW | RTLD_LOCAL);
        }
        if (!library) library = dlopen("libtalea.so.0", RTLD_NOW | RTLD_LOCAL);
    }
    return library ? dlsym(library, name) : NULL;
}

/* A pointer to the function of libtalea that talea.h declares by this name. */
#define LIBTALEA(name) ((__typeof__(&name))found(#name))

static const char *error_text(void) {
    __typeof__(&talea_error) error = LIBTALEA(talea_error);
    return error ? error() : "libtalea.so.0 was not found: start the program with `talea run`, `talea attach` or `talea exec`";
}

/* On rank 0. */
static int subscribe(const char *container, uint64_t after_step, talea_subscription_t **out) {
    talea_system_t *system;
    talea_container_t *opened;
    if (!found("talea_subscribe")) return TALEA_NO_SYSTEM;
    int code = LIBTALEA(talea_connect)(NULL, CONNECT_MS, &system);
    if (code != TALEA_OK) return code;
    code = LIBTALEA(talea_container_open)(system, container, &opened);
    if (code == TALEA_OK) {
        code = LIBTALEA(talea_subscribe)(opened, after_step, out);
        LIBTALEA(talea_container_close)(opened);
    }
    LIBTALEA(talea_disconnect)(system);
    return code;
}

/* Whether a code is one of a wait's ends, rather than an error. */
static int is_outcome(int code) {
    return code == TALEA_OK || code == TALEA_NOT_READY || code == TALEA_END || code == TALEA_PRODUCER_LOST;
}

/* Rank 0's code and numbers, on all ranks; with the text of an error. */
static int told(struct follower *follower, int rank, int64_t numbers[3]) {
    MPI_Bcast(numbers, 3, MPI_INT64_T, 0, follower->comm);
    if (!is_outcome((int)numbers[0])) {
        if (rank == 0) snprintf(follower->text, sizeof follower->text, "%s", error_text());
        MPI_Bcast(follower->text, sizeof follower->text, MPI_CHAR, 0, follower->comm);
    }
    return (int)numbers[0];
}

int talea_mpi_f_follow(MPI_Fint comm, const char *container, int64_t after_step, void **out) {
    int rank;
    int64_t numbers[3] = {TALEA_OK, 0, 0};
    struct follower *follower = calloc(1, sizeof *follower);
    *out = follower;
    /* Without memory this rank cannot tell the others. */
    if (!follower) MPI_Abort(MPI_Comm_f2c(comm), TALEA_OTHER);
    MPI_Comm_dup(MPI_Comm_f2c(comm), &follower->comm);
    MPI_Comm_rank(follower->comm, &rank);
    if (rank == 0) numbers[0] = subscribe(container, (uint64_t)after_step, &follower->subscription);
    return told(follower, rank, numbers);
}

int talea_mpi_f_wait(void *handle, int64_t deadline_ms, int64_t *step, int64_t *latest_step) {
    struct follower *follower = handle;
    talea_step_t next = {0, 0, 0};
    int rank;
    int64_t numbers[3] = {TALEA_ARGUMENT, 0, 0};
    *step = *latest_step = 0;
    if (!follower) return TALEA_ARGUMENT;
    MPI_Comm_rank(follower->comm, &rank);
    if (rank == 0 && follower->subscription) {
        numbers[0] = LIBTALEA(talea_wait)(follower->subscription, deadline_ms, &next);
        numbers[1] = (int64_t)next.step;
        numbers[2] = (int64_t)next.latest_step;
    }
    int code = told(follower, rank, numbers);
    *step = numbers[1];
    *latest_step = numbers[2];
    return code;
}

/* The last error's text, filled with blanks. Local. */
void talea_mpi_f_follower_text(void *handle, char *text, int room) {
    struct follower *follower = handle;
    const char *from = follower ? follower->text : "";
    size_t bytes = strlen(from) < (size_t)room ? strlen(from) : (size_t)room;
    memset(text, ' ', (size_t)room);
    memcpy(text, from, bytes);
}

void talea_mpi_f_unfollow(void **handle) {
    struct follower *follower = *handle;
    *handle = NULL;
    if (!follower) return;
    if (follower->subscription) LIBTALEA(talea_unsubscribe)(follower->subscription);
    MPI_Comm_free(&follower->comm);
    free(follower);
}
