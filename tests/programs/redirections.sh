# What shells do with descriptors, case by case: bash redirections.sh FOLDER [CASE...]. Each case starts in an empty
# folder of its own and writes what it found; run natively and over nodes, the output must be the same.
# A case is a function whose name begins with case_. SPDX-License-Identifier: GPL-2.0-or-later

# A child of its own that copies its input, whichever program of them is started.
copy() { cat; }

case_write() { seq 3 >file; cat file; }
case_write_truncates() { echo long line >file; echo short >file; cat file; }
case_append() { for i in 1 2 3; do sh -c "echo $i" >>file; done; cat file; }
case_append_of_two() { { sh -c 'echo a'; sh -c 'echo b'; } >>file; sh -c 'echo c' >>file; cat file; }
case_read() { seq 5 >file; sort -rn <file; wc -l <file; }
case_error_to_output() { ls /nonexistent 2>&1 | sed 's/.*: //'; sh -c 'echo out; echo err >&2' >file 2>&1; cat file; }
case_output_to_error() { { sh -c 'echo swapped' >&2; } 2>file; cat file; }
case_swap() { { sh -c 'echo out; echo err >&2' 3>&1 1>&2 2>&3 3>&-; } 2>two >one; cat one; echo -; cat two; }
case_both() { sh -c 'echo out; echo err >&2' &>file; sort file; sh -c 'echo more >&2' &>>file; wc -l <file; }
case_read_write() { echo abcdef >file; sh -c 'dd bs=1 count=2 2>/dev/null; printf XY >&0; dd bs=1 count=2 2>/dev/null' <>file; echo; cat file; }
case_read_write_number() { echo abcdef >file; exec 3<>file; sh -c 'read -r x <&3; echo $x; echo more >&3'; sh -c 'echo again >&3'; exec 3>&-; cat file; }
case_noclobber() { echo one >file; set -C; sh -c 'echo two' 2>/dev/null >file || echo refused; set +C; cat file; }
case_here_document() { sh -c 'cat; echo end' <<END
first $((1 + 1))
second
END
}
case_here_document_quoted() { cat <<'END' | cat
$HOME `no`
END
}
case_two_here_documents() { sh -c 'cat <&3; cat <&4' 3<<A 4<<B
three
A
four
B
}
case_here_string() { tr a-z A-Z <<<'here string'; wc -c <<<"$(seq 20000)"; }
case_process_substitution_in() { diff <(seq 3) <(seq 2 4); cat <(echo one) <(echo two); paste <(seq 2) <(seq 3 4); }
case_process_substitution_out() { seq 5 | tee >(sort -rn >reverse; echo done >finished) >straight; until [ -e finished ]; do sleep 0.05; done; cat straight reverse; }
case_process_substitution_read() { while read -r x; do sh -c "echo got $x"; done < <(seq 3); }
case_fifo_by_name() { mkfifo pipe; sh -c 'seq 3 >pipe' & sh -c 'cat pipe'; wait; }
case_fifo_inherited() { mkfifo pipe; sh -c 'read x; echo "<$x>"; cat' <pipe & seq 3 >pipe; wait; }
case_fifo_read_write() { mkfifo pipe; exec 3<>pipe; sh -c 'echo one >&3'; sh -c 'echo two >&3'; sh -c 'read x <&3; echo $x'; head -n 1 <&3; exec 3>&-; }
case_fifo_end_of_file() { mkfifo pipe; (sh -c 'echo a' ; sh -c 'echo b') >pipe & cat <pipe; wait; echo end; }
case_tee() { seq 3 | tee one two | cat; cmp one two; seq 4 5 | tee -a one >/dev/null; cat one; }
case_tee_to_error() { seq 3 | tee /dev/stderr 2>file >/dev/null; cat file; }
case_dev_stdout() { sh -c 'echo x >/dev/stdout' | cat; sh -c 'echo y >/dev/stderr' 2>&1 | cat; echo z | sh -c 'cat /dev/stdin'; echo w | cat /dev/fd/0; }
case_dev_stdout_file() { sh -c 'echo one; echo two >>/dev/stdout; echo three' >>file; cat file; }
case_dd() { seq 1000 | dd bs=64 count=4 iflag=fullblock 2>/dev/null | cksum; seq 1000 >file; dd if=file bs=10 skip=3 count=2 2>/dev/null; echo; dd if=/dev/zero of=zeros bs=1k count=5 2>/dev/null; wc -c <zeros; }
case_dd_seek() { seq 100 >file; dd of=file bs=1 seek=5 conv=notrunc <<<XYZ 2>/dev/null; head -c 20 file; echo; { dd bs=1 count=4 2>/dev/null; dd bs=1 skip=2 count=4 2>/dev/null; } <file; }
case_dd_append() { echo a >file; dd oflag=append conv=notrunc of=file <<<b 2>/dev/null; cat file; }
case_shared_output() { exec 3>file; sh -c 'echo one >&3'; sh -c 'echo two >&3'; echo three >&3; sh -c 'printf four >&3'; exec 3>&-; cat file; }
case_shared_output_at_once() { exec 3>file; for i in {1..20}; do sh -c "echo line $i >&3" & done; wait; exec 3>&-; sort -n -k2 file | cksum; wc -l <file; }
case_shared_input() { seq 6 >file; exec 3<file; sh -c 'read x; echo a$x' <&3; read -r y <&3; echo b$y; sh -c 'read x; echo c$x; cat' <&3; cat <&3; exec 3<&-; }
case_shared_input_seek() { seq 100 >file; { sh -c 'dd bs=1 count=10 2>/dev/null >/dev/null'; head -c 6; sh -c 'tail -n 2'; } <file; }
case_head_gives_back() { seq 5 >file; { head -n 2; echo -; cat; } <file; }
case_many_numbers() { sh -c 'cat <&3; cat <&5; echo out >&7; echo nine >&9' 3<<<three 5<<<five 7>seven 9>&1; cat seven; }
case_high_number() { sh -c 'true'; exec 200>file; flock 200 sh -c 'echo locked >&200'; exec 200>&-; cat file; }
case_close() { sh -c 'echo x >&3' 3>&- 2>/dev/null || echo closed; sh -c 'cat' <&- 2>/dev/null || echo no input; sh -c 'echo x' >&- 2>/dev/null || echo no output; }
case_dev_null() { sh -c 'echo x' >/dev/null; cat </dev/null | wc -c; sh -c 'echo e >&2' 2>/dev/null; head -c 5 /dev/zero | tr '\0' z; echo; }
case_dev_full() { sh -c 'echo x >&3' 3>/dev/full 2>/dev/null || echo full; }
case_deleted_file() { exec 3>gone 4<gone; rm gone; sh -c 'echo kept >&3'; sh -c 'cat' <&4; exec 3>&- 4<&-; ls; }
case_unlinked_input() { seq 4 >gone; { rm gone; sh -c 'read x; echo $x'; cat; } <gone; }
case_copy_of_copies() { seq 2 | (exec 5<&0; sh -c 'cat <&5') | (exec 6>&1; sh -c 'cat >&6'); }
case_tail_follow() { echo one >log; (for i in 2 3 4; do sleep 0.2; sh -c "echo $i" >>log; done) & tail -n +1 -f -s 0.1 --pid=$! log; wait; }
case_tail_follow_pipe() { (echo a; sleep 0.1; sh -c 'echo b') | tail -n +1 -f; }
case_tail_of_input() { seq 100 >file; tail -n 2 <file; tail -c 4 file; seq 1000 | tail -n 1; }
case_growing_file() { sh -c 'for i in 1 2 3 4 5; do echo $i; sleep 0.05; done' >file & wait; cat file; }
case_loop_output() { for i in 1 2 3; do sh -c "echo $i"; done >file; while read -r x; do sh -c "echo \$(($x * 2))"; done <file; }
case_subshell_output() { (echo a; sh -c 'echo b'; (sh -c 'echo c')) >file; cat file; }
case_command_substitution() { x=$(sh -c 'echo out; echo err >&2' 2>file); echo "$x"; cat file; echo "$(<file)"; }
case_pipe_of_both() { sh -c 'echo out; echo err >&2' |& sort; }
case_pipe_status() { sh -c 'exit 3' | cat | sh -c 'cat; exit 5'; echo "${PIPESTATUS[*]}"; }
case_broken_pipe() { seq 100000 | head -n 1; echo "${PIPESTATUS[0]}"; }
case_large_pipe() { head -c 3000000 /dev/zero | tr '\0' x | cat | wc -c; }
case_large_file() { head -c 3000000 /dev/zero | sh -c 'cat >file'; cksum <file; cat file file >two; wc -c <two; }
case_read_timeout() { mkfifo pipe; sleep 1 >pipe & bash -c 'read -t 0.2 x; [ $? -gt 128 ] && echo late' <pipe; kill $!; wait 2>/dev/null; }
case_file_kinds() { sh -c '[ -p /dev/stdin ] && echo pipe' </dev/null; echo >file; bash -c '[ -f /dev/stdin ] && echo file; [ -t 0 ] || echo no terminal' <file; }
case_sort_in_place() { seq 5 >file; sort -rn -o file file; cat file; }
case_grep_own_output() { seq 3 >file; grep 2 file >>other; grep -c . file other; }
case_cat_own_input() { echo x >file; cat <file >>file; sed -n 1,2p file | head -c 4; }
case_mapfile() { mapfile -t lines < <(sh -c 'seq 3'); echo "${lines[@]}"; }
case_coprocess() { coproc sort; sh -c 'seq 3 -1 1' >&"${COPROC[1]}"; eval "exec ${COPROC[1]}>&-"; cat <&"${COPROC[0]}"; wait; }
case_exec_all_output() { (exec >file 2>&1; sh -c 'echo out'; sh -c 'echo err >&2'); cat file; }
case_xargs_input() { seq 3 | xargs -I{} sh -c 'echo {}; cat' ; }
case_nohup() { nohup sh -c 'echo kept' >file 2>/dev/null </dev/null; cat file; }
case_find_exec() { touch a b c; find . -type f -newermt 2000-01-01 -exec sh -c 'echo "$@"' x {} + | tr ' ' '\n' | sort; }
case_tar_pipe() { mkdir in out; seq 9 >in/f; tar -C in -cf - . | tar -C out -xf -; cat out/f; }
case_split_filter() { seq 6 | split -l 2 --filter='sort -rn | tr "\n" " "; echo' -; }
case_sed_write() { seq 3 | sed -n -e 'w file' -e '$p'; cat file; }
case_awk_pipes() { seq 5 | awk '{print | "sort -rn"} END {close("sort -rn"); "echo x" | getline y; print y}'; }
case_python_descriptors() { python3 -c 'import os; os.write(1, b"one\n"); os.lseek(0, 2, 0); print(os.read(0, 3), os.lseek(0, 0, 1), os.fstat(0).st_size)' <<<abcdefg; }
case_python_truncate() { seq 9 >file; python3 -c 'import os; os.ftruncate(3, 4); os.write(3, b"end\n"); print(os.fstat(3).st_size)' 3<>file; cat file; }
case_python_kinds() { mkfifo pipe; exec 7<>pipe; seq 3 | { python3 -c 'import os, stat
print([stat.filemode(os.fstat(fd).st_mode)[0] for fd in (5, 7, 8)])' 5<&0 8>&1; } | cat; exec 7>&-; }
case_python_mmap() { seq 9 >file; python3 -c 'import mmap; m = mmap.mmap(0, 0, prot=mmap.PROT_READ); print(len(m), m[:4])' <file; }
case_python_poll() { (sleep 0.2; echo late) | python3 -c 'import select, os; print(select.select([0], [], [], 0)[0]); print(select.select([0], [], [], 9)[0], os.read(0, 9))'; }
case_python_nonblocking() { mkfifo pipe; exec 3<>pipe; python3 -c 'import os, fcntl
os.set_blocking(3, False)
try: os.read(3, 1)
except BlockingIOError: print("nothing yet")
os.write(3, b"x"); print(os.read(3, 1))'; exec 3>&-; }

mkdir -p "$1" && cd "$1" || exit 1
folder=$PWD
shift
if [ $# = 0 ]; then mapfile -t cases < <(compgen -A function case_); set -- "${cases[@]}"; fi
for name in "$@"; do
  echo "== $name"
  mkdir "$folder/$name" && cd "$folder/$name" || exit 1
  # A group of subshells of its own: what one case changes does not reach the next.
  (eval "$name") </dev/null 2>&1
  echo "status $?"
done
