/* Writes step after step with HDF5, independently, until a server is killed under it: stops at the first error as a careful program does, and
 * every rank must come to the end.  Arguments: a file, and how many steps at most.  Ends with 42 when a call has failed on every rank. */
#include <hdf5.h>
#include <mpi.h>
#include <stdio.h>
#include <stdlib.h>

enum { ROWS = 64, COLUMNS = 1024 };

int main(int argc, char **argv) {
    static double data[ROWS * COLUMNS];
    int rank, size, step, most = argc > 2 ? atoi(argv[2]) : 1000;
    const char *failed = NULL;
    MPI_Init(&argc, &argv);
    MPI_Comm_rank(MPI_COMM_WORLD, &rank);
    MPI_Comm_size(MPI_COMM_WORLD, &size);
    H5Eset_auto2(H5E_DEFAULT, NULL, NULL);
    hid_t access = H5Pcreate(H5P_FILE_ACCESS);
    H5Pset_fapl_mpio(access, MPI_COMM_WORLD, MPI_INFO_NULL);
    hid_t file = H5Fcreate(argv[1], H5F_ACC_TRUNC, H5P_DEFAULT, access);
    hsize_t shape[2] = {(hsize_t)ROWS * size, COLUMNS}, start[2] = {(hsize_t)ROWS * rank, 0}, count[2] = {ROWS, COLUMNS};
    hid_t memory = H5Screate_simple(2, count, NULL), space = H5Screate_simple(2, shape, NULL);
    H5Sselect_hyperslab(space, H5S_SELECT_SET, start, NULL, count, NULL);
    if (file < 0) failed = "create";
    for (step = 0; !failed && step < most; step++) {
        char name[32];
        snprintf(name, sizeof name, "step%d", step);
        hid_t set = H5Dcreate2(file, name, H5T_NATIVE_DOUBLE, space, H5P_DEFAULT, H5P_DEFAULT, H5P_DEFAULT);
        if (set < 0) failed = "H5Dcreate";
        else if (H5Dwrite(set, H5T_NATIVE_DOUBLE, memory, space, H5P_DEFAULT, data) < 0) failed = "H5Dwrite";
        else if (H5Fflush(file, H5F_SCOPE_GLOBAL) < 0) failed = "H5Fflush";
        if (set >= 0) H5Dclose(set);
        if (rank == 0 && !failed) printf("step %d\n", step);
        fflush(stdout);
    }
    herr_t closed = file < 0 ? -1 : H5Fclose(file);
    MPI_Barrier(MPI_COMM_WORLD);
    printf("rank %d: %s failed in step %d, H5Fclose %s\n", rank, failed ? failed : "nothing", step - 1, closed < 0 ? "failed" : "succeeded");
    fflush(stdout);
    int all = failed != NULL, every;
    MPI_Allreduce(&all, &every, 1, MPI_INT, MPI_MIN, MPI_COMM_WORLD);
    /* HDF5 1.10 crashes in MPI_Finalize when it could not close a file. */
    if (every) MPI_Abort(MPI_COMM_WORLD, 42);
    MPI_Finalize();
    return 1;
}
