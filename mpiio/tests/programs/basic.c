/* Every kind of call once: blocking, nonblocking, split, pointer, view, size, info, queries. Two or more ranks. */
#include "check.h"

static int rank, size;

static void pointers(MPI_File file) {
    int value[4] = {rank * 10, rank * 10 + 1, rank * 10 + 2, rank * 10 + 3}, back[4];
    MPI_Status status;
    MPI_Offset offset;
    int count;
    OK(MPI_File_set_view(file, rank * 64, MPI_INT, MPI_INT, "native", MPI_INFO_NULL));
    OK(MPI_File_write(file, value, 2, MPI_INT, &status));
    OK(MPI_Get_count(&status, MPI_INT, &count));
    CHECK(count == 2);
    OK(MPI_File_get_position(file, &offset));
    CHECK(offset == 2);
    OK(MPI_File_write_all(file, value + 2, 2, MPI_INT, MPI_STATUS_IGNORE));
    OK(MPI_File_seek(file, -3, MPI_SEEK_CUR));
    OK(MPI_File_read_all(file, back, 3, MPI_INT, &status));
    CHECK(memcmp(back, value + 1, 12) == 0);
    FAILS(MPI_File_seek(file, -100, MPI_SEEK_CUR), MPI_ERR_ARG, "before the start");
    OK(MPI_File_get_byte_offset(file, 3, &offset));
    CHECK(offset == rank * 64 + 12);
    /* Large counts take the same way. */
    OK(MPI_File_seek(file, 0, MPI_SEEK_SET));
    OK(MPI_File_read_c(file, back, 4, MPI_INT, &status));
    CHECK(memcmp(back, value, 16) == 0);
}

static void requests(MPI_File file) {
    double value[2] = {rank + 0.5, rank + 0.25}, back[2] = {0, 0};
    MPI_Request request[2];
    MPI_Status status;
    int count, done;
    OK(MPI_File_set_view(file, 4096, MPI_DOUBLE, MPI_DOUBLE, "native", MPI_INFO_NULL));
    OK(MPI_File_iwrite_at(file, rank * 2, value, 1, MPI_DOUBLE, &request[0]));
    OK(MPI_File_iwrite_at_all(file, rank * 2 + 1, value + 1, 1, MPI_DOUBLE, &request[1]));
    OK(MPI_Waitall(2, request, MPI_STATUSES_IGNORE));
    CHECK(request[0] == MPI_REQUEST_NULL);
    OK(MPI_File_seek(file, rank * 2, MPI_SEEK_SET));
    OK(MPI_File_iread(file, back, 2, MPI_DOUBLE, &request[0]));
    OK(MPI_Test(&request[0], &done, &status));
    CHECK(done);
    OK(MPI_Get_count(&status, MPI_DOUBLE, &count));
    CHECK(count == 2 && memcmp(back, value, 16) == 0);
    memset(back, 0, sizeof back);
    OK(MPI_File_iread_at_all_c(file, rank * 2, back, 2, MPI_DOUBLE, &request[0]));
    OK(MPI_Wait(&request[0], &status));
    CHECK(memcmp(back, value, 16) == 0);
}

static void split(MPI_File file) {
    char value[8], back[8];
    MPI_Status status;
    int count;
    memset(value, 'a' + rank, sizeof value);
    OK(MPI_File_set_view(file, 8192, MPI_BYTE, MPI_BYTE, "native", MPI_INFO_NULL));
    OK(MPI_File_write_at_all_begin(file, rank * 8, value, 8, MPI_BYTE));
    FAILS(MPI_File_read_at_all_begin(file, 0, back, 8, MPI_BYTE), MPI_ERR_IO, "active");
    OK(MPI_File_write_at_all_end(file, value, &status));
    OK(MPI_Get_count(&status, MPI_BYTE, &count));
    CHECK(count == 8);
    OK(MPI_File_seek(file, rank * 8, MPI_SEEK_SET));
    OK(MPI_File_read_all_begin(file, back, 8, MPI_BYTE));
    OK(MPI_File_read_all_end(file, back, &status));
    CHECK(memcmp(back, value, 8) == 0);
    FAILS(MPI_File_read_all_end(file, back, &status), MPI_ERR_IO, "no split collective");
}

static void sizes(MPI_File file) {
    MPI_Offset bytes;
    MPI_Status status;
    char tail[10];
    int count;
    OK(MPI_File_set_view(file, 0, MPI_BYTE, MPI_BYTE, "native", MPI_INFO_NULL));
    OK(MPI_File_set_size(file, 9000));
    OK(MPI_File_get_size(file, &bytes));
    CHECK(bytes == 9000);
    OK(MPI_File_preallocate(file, 100));
    OK(MPI_File_get_size(file, &bytes));
    CHECK(bytes == 9000);
    OK(MPI_File_preallocate(file, 20000));
    OK(MPI_File_get_size(file, &bytes));
    CHECK(bytes == 20000);
    OK(MPI_File_read_at(file, 19996, tail, 10, MPI_BYTE, &status));
    OK(MPI_Get_count(&status, MPI_BYTE, &count));
    CHECK(count == 4 && tail[0] == 0);
    OK(MPI_File_seek(file, -4, MPI_SEEK_END));
    OK(MPI_File_read(file, tail, 10, MPI_BYTE, &status));
    OK(MPI_Get_count(&status, MPI_BYTE, &count));
    CHECK(count == 4);
    OK(MPI_File_get_position(file, &bytes));
    CHECK(bytes == 20000);
    FAILS(MPI_File_set_size(file, -1), MPI_ERR_ARG, "negative");
    FAILS(MPI_File_set_size(file, rank), MPI_ERR_NOT_SAME, "different sizes");
}

static void queries(MPI_File file, MPI_Comm comm) {
    int amode, flag, members;
    char text[MPI_MAX_INFO_VAL + 1];
    MPI_Info info;
    MPI_Group group;
    MPI_Aint extent;
    MPI_Offset displacement;
    MPI_Datatype etype, filetype, pair, gap;
    OK(MPI_File_get_amode(file, &amode));
    CHECK(amode == (MPI_MODE_CREATE | MPI_MODE_RDWR));
    OK(MPI_File_get_group(file, &group));
    OK(MPI_Group_size(group, &members));
    CHECK(members == size);
    OK(MPI_Group_free(&group));
    OK(MPI_File_get_info(file, &info));
    OK(MPI_Info_get(info, "romio_visibility_immediate", MPI_MAX_INFO_VAL, text, &flag));
    CHECK(flag && strcmp(text, "true") == 0);
    OK(MPI_Info_get(info, "talea_epoch", MPI_MAX_INFO_VAL, text, &flag));
    CHECK(flag && strcmp(text, "sync") == 0);
    /* There is no such key. */
    OK(MPI_Info_get(info, "talea_note", MPI_MAX_INFO_VAL, text, &flag));
    CHECK(!flag);
    OK(MPI_File_set_info(file, info));
    OK(MPI_Info_free(&info));
    OK(MPI_File_get_type_extent(file, MPI_DOUBLE, &extent));
    CHECK(extent == 8);
    OK(MPI_File_get_atomicity(file, &flag));
    CHECK(!flag);
    OK(MPI_File_set_atomicity(file, 0));
    OK(MPI_File_set_atomicity(file, 1));
    OK(MPI_File_set_atomicity(file, 0));
    OK(MPI_Type_contiguous(2, MPI_INT, &pair));
    OK(MPI_Type_commit(&pair));
    OK(MPI_Type_create_resized(pair, 0, 24, &gap));
    OK(MPI_Type_commit(&gap));
    OK(MPI_File_set_view(file, 16, pair, gap, "internal", MPI_INFO_NULL));
    OK(MPI_Type_free(&pair));
    OK(MPI_Type_free(&gap));
    OK(MPI_File_get_view(file, &displacement, &etype, &filetype, text));
    CHECK(displacement == 16 && strcmp(text, "internal") == 0);
    MPI_Aint lower;
    OK(MPI_Type_get_extent(filetype, &lower, &extent));
    CHECK(extent == 24);
    OK(MPI_Type_free(&etype));
    OK(MPI_Type_free(&filetype));
    FAILS(MPI_File_set_view(file, 0, MPI_BYTE, MPI_BYTE, "external33", MPI_INFO_NULL), MPI_ERR_UNSUPPORTED_DATAREP, "native");
    FAILS(MPI_File_set_view(file, 0, MPI_INT, MPI_BYTE, "native", MPI_INFO_NULL), MPI_ERR_ARG, "multiple");
    FAILS(MPI_File_set_view(file, -2, MPI_BYTE, MPI_BYTE, "native", MPI_INFO_NULL), MPI_ERR_ARG, "negative");
    (void)comm;
}

static void mistakes(MPI_File file) {
    char byte = 0;
    OK(MPI_File_set_view(file, 0, MPI_BYTE, MPI_BYTE, "native", MPI_INFO_NULL));
    FAILS(MPI_File_write_at(file, -1, &byte, 1, MPI_BYTE, MPI_STATUS_IGNORE), MPI_ERR_ARG, "negative");
    FAILS(MPI_File_write_at(file, 0, &byte, -1, MPI_BYTE, MPI_STATUS_IGNORE), MPI_ERR_COUNT, "negative");
    FAILS(MPI_File_write_at(file, 0, NULL, 1, MPI_BYTE, MPI_STATUS_IGNORE), MPI_ERR_BUFFER, "null");
    FAILS(MPI_File_write_at(file, 0, &byte, 1, MPI_DATATYPE_NULL, MPI_STATUS_IGNORE), MPI_ERR_TYPE, "MPI_DATATYPE_NULL");
    FAILS(MPI_File_write_at(file, 0x7fffffffffffffff, &byte, 1, MPI_BYTE, MPI_STATUS_IGNORE), MPI_ERR_ARG, "2^63");
    FAILS(MPI_File_get_size(file, NULL), MPI_ERR_ARG, "null");
    OK(MPI_File_write_at(file, 0, NULL, 0, MPI_BYTE, MPI_STATUS_IGNORE));
}

int main(int argc, char **argv) {
    MPI_File file, copy;
    MPI_Info info;
    OK(MPI_Init(&argc, &argv));
    MPI_Comm_rank(MPI_COMM_WORLD, &rank);
    MPI_Comm_size(MPI_COMM_WORLD, &size);
    OK(MPI_Info_create(&info));
    OK(MPI_Info_set(info, "talea_note", "none"));
    OK(MPI_Info_set(info, "talea_epoch", "sync"));
    OK(MPI_File_open(MPI_COMM_WORLD, "/talea/run/basic", MPI_MODE_CREATE | MPI_MODE_RDWR, info, &file));
    OK(MPI_Info_free(&info));
    CHECK(MPI_File_f2c(MPI_File_c2f(file)) == file);
#ifndef MPI_ABI_VERSION /* There it is the handle's own number. */
    CHECK(MPI_File_c2f(MPI_FILE_NULL) == 0);
#endif
    pointers(file);
    MPI_Barrier(MPI_COMM_WORLD);
    requests(file);
    split(file);
    MPI_Barrier(MPI_COMM_WORLD);
    sizes(file);
    queries(file, MPI_COMM_WORLD);
    mistakes(file);
    copy = file;
    OK(MPI_File_close(&file));
    CHECK(file == MPI_FILE_NULL);
    FAILS(MPI_File_sync(copy), MPI_ERR_FILE, "closed");
    FAILS(MPI_File_close(&copy), MPI_ERR_FILE, "closed");
    OK(MPI_Finalize());
    return 0;
}
