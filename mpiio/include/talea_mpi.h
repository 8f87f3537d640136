/*
 * Collective epochs over an MPI communicator: any number of files, and objects of the same container, become visible with one
 * commit; and a communicator that follows a container's steps.
 *
 * The functions are found in the MPI-IO driver, which `talea run` preloads, so there is nothing to link with but what a program
 * has already (-ldl on old systems). They return MPI_SUCCESS or an MPI error code, whose text with the remedy MPI_Error_string
 * has. Started without Talea they return MPI_ERR_UNSUPPORTED_OPERATION. Collective, unless said otherwise; all ranks return the
 * same class.
 *
 * Following (talea_mpi_follow and talea_mpi_wait) needs talea.h before this header, and -ltalea.
 */
#ifndef TALEA_MPI_H
#define TALEA_MPI_H

#ifndef _GNU_SOURCE
#define _GNU_SOURCE /* for RTLD_DEFAULT */
#endif
#include <dlfcn.h>
#include <mpi.h>
#include <stddef.h>
#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

/* An open row of epochs: each commit begins the next one. */
typedef struct talea_mpi_epoch_t *talea_mpi_epoch_t;

#define TALEA_MPI_CALL(name, types, arguments)                                       \
    do {                                                                             \
        int(*function_) types;                                                       \
        *(void **)(&function_) = dlsym(RTLD_DEFAULT, name);                          \
        return function_ ? function_ arguments : MPI_ERR_UNSUPPORTED_OPERATION;      \
    } while (0)

/* Begins an epoch in a container. */
static inline int talea_mpi_epoch_begin(MPI_Comm comm, const char *container, talea_mpi_epoch_t *epoch) {
    TALEA_MPI_CALL("talea_mpi_epoch_begin", (MPI_Comm, const char *, talea_mpi_epoch_t *), (comm, container, epoch));
}

/* Takes an open file of the same container into the epoch. It must be open for writing, on a communicator of the same ranks in
 * the same order, by the handle that opened it first. What was written before commits now; from here on MPI_File_sync and
 * MPI_File_close commit nothing of this file. A file that a library opens takes part by the info key talea_epoch=explicit. */
static inline int talea_mpi_epoch_file(talea_mpi_epoch_t epoch, MPI_File file) {
    TALEA_MPI_CALL("talea_mpi_epoch_file", (talea_mpi_epoch_t, MPI_File), (epoch, file));
}

/* The open epoch in the form that talea_epoch_join() of talea.h takes, to write objects in it. `*bytes` is the room at `blob`, and
 * then the size; with a null `blob` only the size is told. Local. After each commit there is another one. */
static inline int talea_mpi_epoch_blob(talea_mpi_epoch_t epoch, void *blob, size_t *bytes) {
    TALEA_MPI_CALL("talea_mpi_epoch_blob", (talea_mpi_epoch_t, void *, size_t *), (epoch, blob, bytes));
}

/* Commits all that the files wrote, and the objects that this rank wrote: `objects` is what talea_epoch_summary() told, or NULL.
 * All of it becomes visible at one instant, as the container's next step; then the next epoch is open. If a write failed on any
 * rank the commit fails on all, and nothing becomes visible. `step` may be NULL. */
static inline int talea_mpi_epoch_commit(talea_mpi_epoch_t epoch, const void *objects, size_t objects_bytes, uint64_t *step) {
    TALEA_MPI_CALL("talea_mpi_epoch_commit", (talea_mpi_epoch_t, const void *, size_t, uint64_t *),
                   (epoch, objects, objects_bytes, step));
}

/* Ends it: what is not committed is gone, and the files go on each with an epoch of its own. */
static inline int talea_mpi_epoch_end(talea_mpi_epoch_t *epoch) {
    TALEA_MPI_CALL("talea_mpi_epoch_end", (talea_mpi_epoch_t *), (epoch));
}

#ifdef TALEA_H

/* A communicator that follows a container's steps: rank 0 waits, all are told. */
typedef struct talea_mpi_follower_t {
    MPI_Comm comm;
    talea_subscription_t *subscription; /* on rank 0 */
} talea_mpi_follower_t;

/* Follows the steps after `after_step`. Returns a talea_code_t, the same on all ranks. */
static inline int talea_mpi_follow(MPI_Comm comm, talea_container_t *container, uint64_t after_step, talea_mpi_follower_t *out) {
    int rank, code = TALEA_OK;
    out->subscription = NULL;
    MPI_Comm_dup(comm, &out->comm);
    MPI_Comm_rank(out->comm, &rank);
    if (rank == 0) code = talea_subscribe(container, after_step, &out->subscription);
    MPI_Bcast(&code, 1, MPI_INT, 0, out->comm);
    if (code != TALEA_OK) MPI_Comm_free(&out->comm);
    return code;
}

/* Waits for the next step, at most `deadline_ms`. The outcomes are those of talea_wait(), the same on all ranks, and so is `step`. */
static inline int talea_mpi_wait(talea_mpi_follower_t *follower, int64_t deadline_ms, talea_step_t *step) {
    uint64_t told[4] = {0, 0, 0, 0};
    int rank;
    MPI_Comm_rank(follower->comm, &rank);
    if (rank == 0) {
        told[0] = (uint64_t)talea_wait(follower->subscription, deadline_ms, step);
        told[1] = step->step;
        told[2] = step->stamp;
        told[3] = step->latest_step;
    }
    MPI_Bcast(told, sizeof told, MPI_BYTE, 0, follower->comm);
    step->step = told[1];
    step->stamp = told[2];
    step->latest_step = told[3];
    return (int)told[0];
}

/* Ends it. */
static inline void talea_mpi_unfollow(talea_mpi_follower_t *follower) {
    talea_unsubscribe(follower->subscription);
    MPI_Comm_free(&follower->comm);
}

#endif /* TALEA_H */

#ifdef __cplusplus
}
#endif
#endif /* TALEA_MPI_H */
