/*
 * A preload for clusters whose MPICH talks UCX over TCP: lets MPI_Finalize() end.
 *
 * MPICH 4.0's MPI_Finalize() closes its UCX endpoints and then waits for the other ranks in the process manager, where it
 * makes no more progress.  To close an endpoint over TCP is to ask the peer for an acknowledgement, which a peer that waits
 * there never gives: the ranks stall for ever, with Talea or without it, every few runs of four nodes.  (Later MPICHs wait
 * before they close.)  So: two barriers, after which no rank waits for anything of another and nothing is left to be sent,
 * and the endpoints are not closed one by one but go with their worker.
 */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <mpi.h>

/* Weak: this is loaded into programs without MPI, too. */
#pragma weak PMPI_Barrier
#pragma weak PMPI_Finalize

static int ending;

int MPI_Finalize(void)
{
    PMPI_Barrier(MPI_COMM_WORLD);
    /* A connection that the first one has opened is open for all of the second. */
    PMPI_Barrier(MPI_COMM_WORLD);
    __atomic_store_n(&ending, 1, __ATOMIC_RELEASE);
    return PMPI_Finalize();
}

void *ucp_disconnect_nb(void *endpoint);

void *ucp_disconnect_nb(void *endpoint)
{
    void *(*real)(void *);
    if (__atomic_load_n(&ending, __ATOMIC_ACQUIRE))
        return 0; /* UCS_OK: done at once */
    real = (void *(*)(void *))dlsym(RTLD_NEXT, "ucp_disconnect_nb");
    return real ? real(endpoint) : 0;
}
