/*
 * An interposer as Darshan is one: it wraps functions of MPI, counts the program's calls, and forwards them by their PMPI_ names.
 * At the end it prints what it counted, so a test sees that it stood in front of the driver.
 */
#define _GNU_SOURCE
#include <mpi.h>
#include <stdio.h>

static int opens, writes, reads, closes;

int MPI_File_open(MPI_Comm comm, const char *name, int amode, MPI_Info info, MPI_File *file) {
    opens++;
    return PMPI_File_open(comm, name, amode, info, file);
}

int MPI_File_write_at_all(MPI_File file, MPI_Offset offset, const void *data, int count, MPI_Datatype type, MPI_Status *status) {
    writes++;
    return PMPI_File_write_at_all(file, offset, data, count, type, status);
}

int MPI_File_read_at_all(MPI_File file, MPI_Offset offset, void *data, int count, MPI_Datatype type, MPI_Status *status) {
    reads++;
    return PMPI_File_read_at_all(file, offset, data, count, type, status);
}

int MPI_File_close(MPI_File *file) {
    closes++;
    return PMPI_File_close(file);
}

int MPI_Finalize(void) {
    int rank;
    MPI_Comm_rank(MPI_COMM_WORLD, &rank);
    fprintf(stderr, "interposer: rank %d: %d opens, %d writes, %d reads, %d closes\n", rank, opens, writes, reads, closes);
    return PMPI_Finalize();
}
