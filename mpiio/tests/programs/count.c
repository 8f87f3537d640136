/* A preload that counts the collective MPI calls below the program: the driver's own. */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <mpi.h>

int counted_reductions, counted_broadcasts, counted_others, counted_exchanges, counted_messages;
long counted_bytes;

#define NEXT(name) ((__typeof__(&name))dlsym(RTLD_NEXT, #name))

int PMPI_Reduce(const void *from, void *to, int count, MPI_Datatype type, MPI_Op op, int root, MPI_Comm comm) {
    counted_reductions++;
    return NEXT(PMPI_Reduce)(from, to, count, type, op, root, comm);
}
int PMPI_Bcast(void *buffer, int count, MPI_Datatype type, int root, MPI_Comm comm) {
    counted_broadcasts++;
    return NEXT(PMPI_Bcast)(buffer, count, type, root, comm);
}
int PMPI_Allreduce(const void *from, void *to, int count, MPI_Datatype type, MPI_Op op, MPI_Comm comm) {
    counted_others++;
    return NEXT(PMPI_Allreduce)(from, to, count, type, op, comm);
}
int PMPI_Barrier(MPI_Comm comm) {
    counted_others++;
    return NEXT(PMPI_Barrier)(comm);
}
int PMPI_Alltoall(const void *from, int fromcount, MPI_Datatype fromtype, void *to, int count, MPI_Datatype type, MPI_Comm comm) {
    counted_exchanges++;
    return NEXT(PMPI_Alltoall)(from, fromcount, fromtype, to, count, type, comm);
}
int PMPI_Sendrecv(const void *from, int fromcount, MPI_Datatype fromtype, int dest, int tag, void *to, int count, MPI_Datatype type,
                  int source, int totag, MPI_Comm comm, MPI_Status *status) {
    counted_messages++;
    counted_bytes += fromcount;
    return NEXT(PMPI_Sendrecv)(from, fromcount, fromtype, dest, tag, to, count, type, source, totag, comm, status);
}
int PMPI_Gather(const void *from, int fromcount, MPI_Datatype fromtype, void *to, int count, MPI_Datatype type, int root, MPI_Comm comm) {
    counted_others++;
    return NEXT(PMPI_Gather)(from, fromcount, fromtype, to, count, type, root, comm);
}
