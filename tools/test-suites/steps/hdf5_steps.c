/* The steps of HDF5's flushes: H5Dflush, H5Fflush, H5Fclose. */
#include <hdf5.h>
#include "steps.h"

#define FILE_NAME "steps.h5"
#define CELLS 4096

static int value_of(const char *path)
{
    int data[CELLS], value = -2;
    H5E_BEGIN_TRY
    {
        hid_t access = H5Pcreate(H5P_FILE_ACCESS);
        H5Pset_fapl_mpio(access, MPI_COMM_SELF, MPI_INFO_NULL);
        hid_t file = H5Fopen(path, H5F_ACC_RDONLY, access);
        hid_t set = file < 0 ? -1 : H5Dopen2(file, "data", H5P_DEFAULT);
        if (set >= 0 && H5Dread(set, H5T_NATIVE_INT, H5S_ALL, H5S_ALL, H5P_DEFAULT, data) >= 0) {
            value = data[0];
            for (int i = 1; i < CELLS; i++)
                if (data[i] != value)
                    value = -3;
        }
        H5Dclose(set);
        H5Fclose(file);
        H5Pclose(access);
    }
    H5E_END_TRY
    return value;
}

static void put(hid_t set, int value)
{
    int size, data[CELLS];
    MPI_Comm_size(MPI_COMM_WORLD, &size);
    hsize_t count = CELLS / size, start = rank * count;
    for (int i = 0; i < CELLS; i++)
        data[i] = value;
    hid_t where = H5Dget_space(set), memory = H5Screate_simple(1, &count, NULL), how = H5Pcreate(H5P_DATASET_XFER);
    H5Pset_dxpl_mpio(how, H5FD_MPIO_COLLECTIVE);
    H5Sselect_hyperslab(where, H5S_SELECT_SET, &start, NULL, &count, NULL);
    if (H5Dwrite(set, H5T_NATIVE_INT, memory, where, how, data) < 0)
        failures++;
    H5Pclose(how);
    H5Sclose(memory);
    H5Sclose(where);
}

int main(int argc, char **argv)
{
    MPI_Init(&argc, &argv);
    MPI_Comm_rank(MPI_COMM_WORLD, &rank);
    hid_t access = H5Pcreate(H5P_FILE_ACCESS);
    H5Pset_fapl_mpio(access, MPI_COMM_WORLD, MPI_INFO_NULL);
    hid_t file = H5Fcreate("/talea/run/" FILE_NAME, H5F_ACC_TRUNC, H5P_DEFAULT, access);
    hsize_t cells = CELLS;
    hid_t space = H5Screate_simple(1, &cells, NULL);
    hid_t set = H5Dcreate2(file, "data", H5T_NATIVE_INT, space, H5P_DEFAULT, H5P_DEFAULT, H5P_DEFAULT);
    after("H5Fcreate, H5Dcreate", FILE_NAME, 0, value_of, -1);
    put(set, 1);
    after("H5Dwrite", FILE_NAME, 0, value_of, -1);
    H5Fflush(file, H5F_SCOPE_GLOBAL);
    after("H5Fflush", FILE_NAME, 1, value_of, 1);
    put(set, 2);
    H5Dflush(set);
    /* A dataset's flush need not leave a file that opens, so the value is not asked for. */
    after("H5Dflush", FILE_NAME, 1, value_of, -1);
    put(set, 3);
    H5Fflush(file, H5F_SCOPE_GLOBAL);
    after("H5Fflush after H5Dflush", FILE_NAME, 1, value_of, 3);
    put(set, 4);
    H5Dclose(set);
    H5Sclose(space);
    H5Fclose(file);
    after("H5Fclose", FILE_NAME, 1, value_of, 4);
    H5Pclose(access);
    return steps_ended();
}
