! An epoch over two files from Fortran, on real servers, and a communicator that follows its steps.
program epochs
    use mpi
    use talea_mpi
    use, intrinsic :: iso_c_binding, only: c_int64_t
    implicit none
    type(talea_mpi_epoch) :: epoch
    integer(c_int64_t) :: step, again
    integer(c_int64_t) :: told, latest
    integer :: ierror, code, rank, one, two, value, status(MPI_STATUS_SIZE)
    type(talea_mpi_follower) :: follower
    character(len=300) :: text
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
    ! Both steps, what the closes made, then nothing until a deadline.
    call talea_mpi_follow(MPI_COMM_WORLD, 'run', step - 1, follower, code)
    call expect(code == talea_mpi_ok, 5)
    call talea_mpi_wait(follower, 10000_c_int64_t, told, latest, code)
    call expect(code == talea_mpi_ok .and. told == step .and. latest >= again, 6)
    call talea_mpi_wait(follower, 10000_c_int64_t, told, latest, code)
    call expect(code == talea_mpi_ok .and. told == again, 7)
    do while (told < latest)
        call talea_mpi_wait(follower, 10000_c_int64_t, told, latest, code)
        call expect(code == talea_mpi_ok, 8)
    end do
    call talea_mpi_wait(follower, 50_c_int64_t, told, latest, code)
    call expect(code == talea_mpi_not_ready, 9)
    call talea_mpi_unfollow(follower)
    ! What cannot be followed is told on all ranks, with its name.
    call talea_mpi_follow(MPI_COMM_WORLD, 'nowhere', 0_c_int64_t, follower, code)
    call expect(code /= talea_mpi_ok .and. code < 17, 10)
    call talea_mpi_follower_text(follower, text)
    call expect(index(text, 'nowhere') > 0, 11)
    call talea_mpi_wait(follower, 0_c_int64_t, told, latest, code)
    call expect(code == 1, 12)
    call talea_mpi_unfollow(follower)
    call MPI_Finalize(ierror)
contains
    subroutine expect(good, which)
        logical, intent(in) :: good
        integer, intent(in) :: which
        integer :: inner
        if (good) return
        print *, 'rank', rank, 'expectation', which, 'code', code, 'step', told, 'of', latest
        call MPI_Abort(MPI_COMM_WORLD, which, inner)
    end subroutine
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
