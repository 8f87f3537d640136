/* Parallel HDF5: a dataset written in slabs, flushed each step, grown, read back. The second argument: close or leave. */
#include <hdf5.h>
#include "check.h"

#define ROWS 8
#define COLUMNS 1000

int main(int argc, char **argv) {
    int rank, size;
    OK(MPI_Init(&argc, &argv));
    MPI_Comm_rank(MPI_COMM_WORLD, &rank);
    MPI_Comm_size(MPI_COMM_WORLD, &size);
    hid_t access = H5Pcreate(H5P_FILE_ACCESS);
    H5Pset_fapl_mpio(access, MPI_COMM_WORLD, MPI_INFO_NULL);
    hid_t file = H5Fcreate("/talea/run/smoke.h5", H5F_ACC_TRUNC, H5P_DEFAULT, access);
    CHECK(file >= 0);
    hsize_t shape[3] = {1, ROWS * size, COLUMNS}, most[3] = {H5S_UNLIMITED, ROWS * size, COLUMNS}, chunk[3] = {1, ROWS, COLUMNS};
    hid_t create = H5Pcreate(H5P_DATASET_CREATE);
    H5Pset_chunk(create, 3, chunk);
    hid_t space = H5Screate_simple(3, shape, most);
    hid_t data = H5Dcreate(file, "field", H5T_NATIVE_DOUBLE, space, H5P_DEFAULT, create, H5P_DEFAULT);
    CHECK(data >= 0);
    hid_t collective = H5Pcreate(H5P_DATASET_XFER);
    H5Pset_dxpl_mpio(collective, H5FD_MPIO_COLLECTIVE);
    hsize_t count[3] = {1, ROWS, COLUMNS};
    static double slab[ROWS * COLUMNS], back[ROWS * COLUMNS];
    hid_t memory = H5Screate_simple(3, count, NULL);
    for (int step = 0; step < 3; step++) {
        hsize_t now[3] = {step + 1, ROWS * size, COLUMNS}, start[3] = {step, ROWS * rank, 0};
        CHECK(H5Dset_extent(data, now) >= 0);
        for (int i = 0; i < ROWS * COLUMNS; i++) slab[i] = step * 1e6 + rank * 1e5 + i;
        hid_t part = H5Dget_space(data);
        H5Sselect_hyperslab(part, H5S_SELECT_SET, start, NULL, count, NULL);
        CHECK(H5Dwrite(data, H5T_NATIVE_DOUBLE, memory, part, collective, slab) >= 0);
        CHECK(H5Dread(data, H5T_NATIVE_DOUBLE, memory, part, collective, back) >= 0);
        CHECK(memcmp(slab, back, sizeof slab) == 0);
        H5Sclose(part);
        CHECK(H5Fflush(file, H5F_SCOPE_GLOBAL) >= 0);
    }
    if (strcmp(argv[2], "close") == 0) {
        H5Dclose(data);
        CHECK(H5Fclose(file) >= 0);
        file = H5Fopen("/talea/run/smoke.h5", H5F_ACC_RDONLY, access);
        CHECK(file >= 0);
        data = H5Dopen(file, "field", H5P_DEFAULT);
        CHECK(data >= 0);
        hid_t part = H5Dget_space(data);
        hsize_t start[3] = {2, ROWS * ((rank + 1) % size), 0};
        H5Sselect_hyperslab(part, H5S_SELECT_SET, start, NULL, count, NULL);
        CHECK(H5Dread(data, H5T_NATIVE_DOUBLE, memory, part, H5P_DEFAULT, back) >= 0);
        CHECK(back[5] == 2e6 + ((rank + 1) % size) * 1e5 + 5);
        H5Sclose(part);
        H5Dclose(data);
        CHECK(H5Fclose(file) >= 0);
    }
    /* Otherwise HDF5 closes the file inside MPI_Finalize. */
    OK(MPI_Finalize());
    return 0;
}
