! An epoch over two files from Fortran, on real servers.
program epochs
    use mpi
    use talea_mpi
    use, intrinsic :: iso_c_binding, only: c_int64_t
    implicit none
    type(talea_mpi_epoch) :: epoch
    integer(c_int64_t) :: step, again
    integer :: ierror, rank, one, two, value, status(MPI_STATUS_SIZE)
    integer(kind=MPI_OFFSET_KIND) :: place
    call MPI_Init(ierror)
    call MPI_Comm_rank(MPI_COMM_WORLD, rank, ierror)
    call MPI_File_open(MPI_COMM_WORLD, '/talea/run/f1', MPI_MODE_CREATE + MPI_MODE_RDWR, MPI_INFO_NULL, one, ierror)
    call check(ierror)
    call MPI_File_open(MPI_COMM_WORLD, '/talea/run/f2', MPI_MODE_CREATE + MPI_MODE_RDWR, MPI_INFO_NULL, two, ierror)
    call check(ierror)
    call talea_mpi_epoch_begin(MPI_COMM_WORLD, 'run', epoch, ierror)
    call check(ierror)
    call talea_mpi_epoch_file(epoch, one, ierror)
    call check(ierror)
    call talea_mpi_epoch_file(epoch, two, ierror)
    call check(ierror)
    value = 40 + rank
    place = 4 * rank
    call MPI_File_write_at_all(one, place, value, 1, MPI_INTEGER, status, ierror)
    call check(ierror)
    call MPI_File_write_at_all(two, place, value, 1, MPI_INTEGER, status, ierror)
    call check(ierror)
    call talea_mpi_epoch_commit(epoch, step, ierror)
    call check(ierror)
    call MPI_File_write_at_all(two, place, value, 1, MPI_INTEGER, status, ierror)
    call check(ierror)
    call talea_mpi_epoch_commit(epoch, again, ierror)
    call check(ierror)
    if (again /= step + 1) call MPI_Abort(MPI_COMM_WORLD, 4, ierror)
    call talea_mpi_epoch_end(epoch, ierror)
    call check(ierror)
    call MPI_File_close(one, ierror)
    call check(ierror)
    call MPI_File_close(two, ierror)
    call check(ierror)
    call MPI_Finalize(ierror)
contains
    subroutine check(code)
        integer, intent(in) :: code
        integer :: length, inner
        character(len=MPI_MAX_ERROR_STRING) :: text
        if (code == MPI_SUCCESS) return
        call MPI_Error_string(code, text, length, inner)
        print *, text(1:length)
        call MPI_Abort(MPI_COMM_WORLD, 3, inner)
    end subroutine
end program
