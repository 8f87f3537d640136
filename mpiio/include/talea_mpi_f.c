/* What talea_mpi.F90 calls: the functions of talea_mpi.h with Fortran's handles. Compile it with the program's own MPI. */
#include "talea_mpi.h"

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
