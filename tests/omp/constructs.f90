! OpenMP in Fortran: do loops, workshare, sections, tasks, reductions, locks, and the omp_lib module's functions.
! SPDX-License-Identifier: GPL-2.0-or-later
program constructs
  use omp_lib
  implicit none
  integer, parameter :: n = 1000
  integer :: failures = 0, round
  integer, save :: own = 0
  !$omp threadprivate(own)

  do round = 1, 5
    call loops()
    call shares()
    call tasks()
    call locks()
    call settings()
  end do
  if (failures /= 0) stop 1

contains

  subroutine expect(good, what)
    logical, intent(in) :: good
    character(len=*), intent(in) :: what
    if (good) return
    !$omp critical(failing)
    failures = failures + 1
    write (0, *) what
    !$omp end critical(failing)
  end subroutine expect

  subroutine loops()
    integer :: i, j, last
    integer(8) :: total
    real(8) :: biggest
    integer :: visits(n)
    visits = 0
    total = 0
    biggest = -1
    !$omp parallel do schedule(dynamic, 3) reduction(+:total) reduction(max:biggest) lastprivate(last)
    do i = n, 1, -1
      visits(i) = visits(i) + 1
      total = total + i
      biggest = max(biggest, real(i, 8))
      last = i
    end do
    !$omp end parallel do
    call expect(all(visits == 1) .and. total == 500500 .and. biggest == n .and. last == 1, "do")
    total = 0
    !$omp parallel do ordered schedule(static, 2)
    do i = 1, n
      !$omp ordered
      if (total == i - 1) total = total + 1
      !$omp end ordered
    end do
    !$omp end parallel do
    call expect(total == n, "ordered")
    visits = 0
    !$omp parallel do collapse(2) schedule(guided)
    do i = 0, 9
      do j = 1, 100
        visits(i * 100 + j) = visits(i * 100 + j) + 1
      end do
    end do
    !$omp end parallel do
    call expect(all(visits == 1), "collapse")
  end subroutine loops

  subroutine shares()
    real(8) :: a(n), b(n)
    integer :: first, second, value
    a = 1
    !$omp parallel workshare
    b = a + 2
    a = b * b
    !$omp end parallel workshare
    call expect(all(a == 9), "workshare")
    first = 0
    second = 0
    !$omp parallel sections
    !$omp section
    first = 1
    !$omp section
    second = 2
    !$omp end parallel sections
    call expect(first == 1 .and. second == 2, "sections")
    own = 4
    !$omp parallel private(value) copyin(own)
    !$omp single
    value = 17
    !$omp end single copyprivate(value)
    call expect(value == 17 .and. own == 4, "copyprivate and copyin")
    !$omp end parallel
  end subroutine shares

  recursive integer function fibonacci(i) result(sum)
    integer, intent(in) :: i
    integer :: a, b
    if (i < 2) then
      sum = i
      return
    end if
    !$omp task shared(a)
    a = fibonacci(i - 1)
    !$omp end task
    !$omp task shared(b)
    b = fibonacci(i - 2)
    !$omp end task
    !$omp taskwait
    sum = a + b
  end function fibonacci

  subroutine tasks()
    integer :: sum, i, chain
    sum = 0
    chain = 0
    !$omp parallel
    !$omp single
    sum = fibonacci(15)
    do i = 1, 20
      !$omp task depend(inout: chain) firstprivate(i)
      if (chain == i - 1) chain = i
      !$omp end task
    end do
    !$omp end single
    !$omp end parallel
    call expect(sum == 610 .and. chain == 20, "tasks")
    sum = 0
    !$omp parallel
    !$omp single
    !$omp taskloop reduction(+:sum) grainsize(9)
    do i = 1, n
      sum = sum + i
    end do
    !$omp end taskloop
    !$omp end single
    !$omp end parallel
    call expect(sum == 500500, "taskloop")
  end subroutine tasks

  subroutine locks()
    integer(omp_lock_kind) :: lock
    integer(omp_nest_lock_kind) :: nest
    integer :: count, i
    count = 0
    call omp_init_lock(lock)
    call omp_init_nest_lock(nest)
    !$omp parallel private(i)
    do i = 1, 200
      call omp_set_lock(lock)
      count = count + 1
      call omp_unset_lock(lock)
      call omp_set_nest_lock(nest)
      call expect(omp_test_nest_lock(nest) == 2, "nest lock")
      call omp_unset_nest_lock(nest)
      call omp_unset_nest_lock(nest)
    end do
    !$omp end parallel
    call expect(count == 200 * omp_get_max_threads(), "lock")
    call omp_destroy_lock(lock)
    call omp_destroy_nest_lock(nest)
  end subroutine locks

  subroutine settings()
    integer :: kind, chunk, threads
    character(len=40) :: text
    integer :: length
    threads = omp_get_max_threads()
    call omp_set_num_threads(3)
    call expect(omp_get_max_threads() == 3, "omp_set_num_threads")
    call omp_set_num_threads(threads)
    call omp_set_schedule(omp_sched_guided, 5)
    call omp_get_schedule(kind, chunk)
    call expect(kind == omp_sched_guided .and. chunk == 5, "schedule")
    call omp_set_dynamic(.true.)
    call expect(omp_get_dynamic(), "dynamic")
    call omp_set_dynamic(.false.)
    call expect(.not. omp_in_parallel() .and. omp_get_level() == 0, "not in a region")
    call expect(omp_get_wtime() > 0 .and. omp_get_wtick() > 0, "time")
    length = omp_capture_affinity(text, "%n of %N")
    call expect(length == 6 .and. text == "0 of 1", "affinity")
    !$omp parallel num_threads(4)
    call expect(omp_get_num_threads() == 4 .and. omp_get_team_size(1) == 4, "team")
    call expect(omp_get_ancestor_thread_num(1) == omp_get_thread_num(), "ancestor")
    !$omp end parallel
  end subroutine settings

end program constructs
