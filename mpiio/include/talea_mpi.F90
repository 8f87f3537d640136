!> Collective epochs over an MPI communicator, and communicators that follow a container's steps, for Fortran: see talea_mpi.h
!> for what each call does. Compile it, and talea_mpi_f.c, with the program's own MPI; there is nothing of Talea to link with. Handles are the integers of `mpif.h` and `use mpi`, or `%MPI_VAL` of `mpi_f08`.
module talea_mpi
    use, intrinsic :: iso_c_binding, only: c_char, c_int, c_int64_t, c_null_char, c_null_ptr, c_ptr
    implicit none
    private
    public :: talea_mpi_epoch, talea_mpi_epoch_begin, talea_mpi_epoch_file, talea_mpi_epoch_commit, talea_mpi_epoch_end
    public :: talea_mpi_follower, talea_mpi_follow, talea_mpi_wait, talea_mpi_follower_text, talea_mpi_unfollow

    !> What `code` can be after a wait, as talea_code_t of talea.h; anything else is an error, which the follower's text tells.
    !> A step; the deadline passed and there may be more; there will be none; the producer has ended otherwise; steps were given
    !> up before they were received, and the next wait goes on after the gap.
    integer, parameter, public :: talea_mpi_ok = 0
    integer, parameter, public :: talea_mpi_retention = 17
    integer, parameter, public :: talea_mpi_not_ready = 18
    integer, parameter, public :: talea_mpi_end = 19
    integer, parameter, public :: talea_mpi_producer_lost = 20

    !> An open row of epochs.
    type :: talea_mpi_epoch
        private
        type(c_ptr) :: handle = c_null_ptr
    end type

    !> A communicator that follows a container's steps.
    type :: talea_mpi_follower
        private
        type(c_ptr) :: handle = c_null_ptr
    end type

    interface
        integer(c_int) function begin_c(comm, container, epoch) bind(C, name='talea_mpi_f_epoch_begin')
            import :: c_int, c_char, c_ptr
            integer(c_int), value :: comm
            character(kind=c_char), intent(in) :: container(*)
            type(c_ptr), intent(out) :: epoch
        end function
        integer(c_int) function file_c(epoch, file) bind(C, name='talea_mpi_f_epoch_file')
            import :: c_int, c_ptr
            type(c_ptr), value :: epoch
            integer(c_int), value :: file
        end function
        integer(c_int) function commit_c(epoch, step) bind(C, name='talea_mpi_f_epoch_commit')
            import :: c_int, c_ptr, c_int64_t
            type(c_ptr), value :: epoch
            integer(c_int64_t), intent(out) :: step
        end function
        integer(c_int) function end_c(epoch) bind(C, name='talea_mpi_f_epoch_end')
            import :: c_int, c_ptr
            type(c_ptr), intent(inout) :: epoch
        end function
        integer(c_int) function follow_c(comm, container, after_step, follower) bind(C, name='talea_mpi_f_follow')
            import :: c_int, c_char, c_ptr, c_int64_t
            integer(c_int), value :: comm
            character(kind=c_char), intent(in) :: container(*)
            integer(c_int64_t), value :: after_step
            type(c_ptr), intent(out) :: follower
        end function
        integer(c_int) function wait_c(follower, deadline_ms, step, latest_step) bind(C, name='talea_mpi_f_wait')
            import :: c_int, c_ptr, c_int64_t
            type(c_ptr), value :: follower
            integer(c_int64_t), value :: deadline_ms
            integer(c_int64_t), intent(out) :: step, latest_step
        end function
        subroutine text_c(follower, text, room) bind(C, name='talea_mpi_f_follower_text')
            import :: c_int, c_char, c_ptr
            type(c_ptr), value :: follower
            character(kind=c_char), intent(out) :: text(*)
            integer(c_int), value :: room
        end subroutine
        subroutine unfollow_c(follower) bind(C, name='talea_mpi_f_unfollow')
            import :: c_ptr
            type(c_ptr), intent(inout) :: follower
        end subroutine
    end interface

contains

    !> Begins an epoch in a container.
    subroutine talea_mpi_epoch_begin(comm, container, epoch, ierror)
        integer, intent(in) :: comm
        character(len=*), intent(in) :: container
        type(talea_mpi_epoch), intent(out) :: epoch
        integer, intent(out) :: ierror
        ierror = begin_c(int(comm, c_int), trim(container) // c_null_char, epoch%handle)
    end subroutine

    !> Takes an open file into the epoch.
    subroutine talea_mpi_epoch_file(epoch, file, ierror)
        type(talea_mpi_epoch), intent(in) :: epoch
        integer, intent(in) :: file
        integer, intent(out) :: ierror
        ierror = file_c(epoch%handle, int(file, c_int))
    end subroutine

    !> Commits, and begins the next epoch.
    subroutine talea_mpi_epoch_commit(epoch, step, ierror)
        type(talea_mpi_epoch), intent(in) :: epoch
        integer(c_int64_t), intent(out) :: step
        integer, intent(out) :: ierror
        ierror = commit_c(epoch%handle, step)
    end subroutine

    !> Ends it; what is not committed is gone.
    subroutine talea_mpi_epoch_end(epoch, ierror)
        type(talea_mpi_epoch), intent(inout) :: epoch
        integer, intent(out) :: ierror
        ierror = end_c(epoch%handle)
    end subroutine

    !> Follows the steps after `after_step` of a container: rank 0 asks the servers, all are told. Collective, as the calls below.
    !> Whatever `code` is, the follower has to be ended.
    subroutine talea_mpi_follow(comm, container, after_step, follower, code)
        integer, intent(in) :: comm
        character(len=*), intent(in) :: container
        integer(c_int64_t), intent(in) :: after_step
        type(talea_mpi_follower), intent(out) :: follower
        integer, intent(out) :: code
        code = follow_c(int(comm, c_int), trim(container) // c_null_char, after_step, follower%handle)
    end subroutine

    !> Waits for the next step, at most `deadline_ms` (0 only looks). The same on all ranks; rank 0's deadline counts.
    subroutine talea_mpi_wait(follower, deadline_ms, step, latest_step, code)
        type(talea_mpi_follower), intent(in) :: follower
        integer(c_int64_t), intent(in) :: deadline_ms
        integer(c_int64_t), intent(out) :: step, latest_step
        integer, intent(out) :: code
        code = wait_c(follower%handle, deadline_ms, step, latest_step)
    end subroutine

    !> The text of the follower's last error, with its remedy. Local.
    subroutine talea_mpi_follower_text(follower, text)
        type(talea_mpi_follower), intent(in) :: follower
        character(len=*), intent(out) :: text
        call text_c(follower%handle, text, int(len(text), c_int))
    end subroutine

    !> Ends it.
    subroutine talea_mpi_unfollow(follower)
        type(talea_mpi_follower), intent(inout) :: follower
        call unfollow_c(follower%handle)
    end subroutine
end module
