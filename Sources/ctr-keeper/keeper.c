/* ctr-keeper PROGRAM ARGS...
 *
 * Parent of a container's shim. It outlives the shim, starts it again, reaps what it leaves behind and holds the container's
 * descriptors open meanwhile. It lives as long as its container and is never upgraded, so it parses nothing, has no C library and
 * its interface (docs/architecture.md, "The keeper's contract") does not change.
 *
 * Built with: cc -std=c11 -Os -ffreestanding -fno-builtin -fno-stack-protector -fno-asynchronous-unwind-tables -fcf-protection=none
 *             -nostdlib -static -no-pie -Wl,--build-id=none -Wl,-z,norelro -Wl,-z,noexecstack -s
 */
#include <asm/signal.h>
#include <asm/unistd.h>
#include <linux/fcntl.h>
#include <linux/prctl.h>
#include <linux/time_types.h>
#include <linux/types.h>
#include <linux/wait.h>

enum { EXITS = 4, STDOUT_WRITER = 9, STDERR_WRITER = 10 };

static const __u64 MILLISECOND = 1000000, SECOND = 1000000000;

/* The kernel's own siginfo for SIGCHLD; waitid(2) fills no more of its 128 bytes than these. */
struct child {
    __s32 signal, error, code;
#if __SIZEOF_POINTER__ == 8
    __s32 padding;
#endif
    __s32 pid;
    __u32 uid;
    __s32 status;
    char rest[128 - 7 * 4];
};

struct exit_entry {
    __u32 pid;
    __s32 status; /* as wait(2) encodes it */
    __u64 boottime;
};

static long call(long number, long a, long b, long c, long d, long e) {
#if defined(__x86_64__)
    long result;
    register long r10 __asm__("r10") = d;
    register long r8 __asm__("r8") = e;
    __asm__ volatile("syscall" : "=a"(result) : "a"(number), "D"(a), "S"(b), "d"(c), "r"(r10), "r"(r8) : "rcx", "r11", "memory");
    return result;
#elif defined(__aarch64__)
    register long x8 __asm__("x8") = number;
    register long x0 __asm__("x0") = a;
    register long x1 __asm__("x1") = b;
    register long x2 __asm__("x2") = c;
    register long x3 __asm__("x3") = d;
    register long x4 __asm__("x4") = e;
    __asm__ volatile("svc 0" : "+r"(x0) : "r"(x8), "r"(x1), "r"(x2), "r"(x3), "r"(x4) : "memory");
    return x0;
#else
#error "no system calls for this machine"
#endif
}

static __u64 clock(void) {
    struct __kernel_timespec now = {0, 0};
    call(__NR_clock_gettime, 7 /* CLOCK_BOOTTIME */, (long)&now, 0, 0, 0);
    return (__u64)now.tv_sec * SECOND + (__u64)now.tv_nsec;
}

static __u64 set_of(int signal) { return 1ull << (signal - 1); }

/* Everything stays blocked in PROGRAM too: a signal that comes before it is ready waits instead of killing it. */
static int start(const char *program, char **argv, char **envp) {
    long pid = call(__NR_clone, SIGCHLD, 0, 0, 0, 0);
    if (pid == 0) {
        call(__NR_execve, (long)program, (long)argv, (long)envp, 0, 0);
        call(__NR_exit_group, 127, 0, 0, 0, 0);
    }
    return (int)pid;
}

static void close_stdin(void) {
    long null = call(__NR_openat, AT_FDCWD, (long)"/dev/null", O_RDWR | O_CLOEXEC, 0, 0);
    if (null < 0) return;
    call(__NR_dup3, null, 0, 0, 0, 0);
    call(__NR_close, null, 0, 0, 0, 0);
}

/* Records and reaps every ended child but PROGRAM. The entry is written before the child is reaped, so that a status is always in one
 * of the two places. Returns 0, or 1 when an entry could not be written: the child stays a zombie until that works. */
static int reap_others(int program) {
    for (;;) {
        struct child child;
        child.pid = 0;
        if (call(__NR_waitid, P_ALL, 0, (long)&child, WEXITED | WNOHANG | WNOWAIT, 0) < 0 || child.pid == 0 || child.pid == program) return 0;
        struct exit_entry entry;
        entry.pid = (__u32)child.pid;
        entry.status = child.code == 1 /* CLD_EXITED */ ? (child.status & 0xff) << 8 : child.status & 0x7f;
        if (child.code == 3 /* CLD_DUMPED */) entry.status |= 0x80;
        entry.boottime = clock();
        if (call(__NR_write, EXITS, (long)&entry, sizeof entry, 0, 0) != sizeof entry) return 1;
        call(__NR_wait4, child.pid, 0, 0, 0, 0);
        if (program > 0) call(__NR_kill, program, SIGUSR2, 0, 0, 0);
    }
}

__attribute__((noreturn, used)) void keeper(long *stack) {
    long argc = stack[0];
    char **argv = (char **)(stack + 1);
    char **envp = argv + argc + 1;
    if (argc < 2) call(__NR_exit_group, 2, 0, 0, 0, 0);

    const char *path = argv[1];
    for (char *c = argv[1]; *c; c++)
        if (*c == '/') argv[1] = c + 1;

    const __u64 everything = ~0ull, awaited = set_of(SIGCHLD) | set_of(SIGUSR1) | set_of(SIGHUP);
    call(__NR_rt_sigprocmask, SIG_BLOCK, (long)&everything, 0, sizeof everything, 0);
    call(__NR_prctl, PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0);
    call(__NR_prctl, PR_SET_NAME, (long)"ctr-keeper", 0, 0, 0);
    call(__NR_prctl, PR_SET_DUMPABLE, 0, 0, 0, 0);

    int program = 0;          /* 0: not running, and to be started at start_at */
    __u64 started_at = 0, start_at = 0, delay = 0;
    int unwritten = 0;
    for (;;) {
        __u64 now = clock();
        if (program == 0 && now >= start_at) {
            program = start(path, argv + 1, envp);
            started_at = now;
            if (program < 0) {
                program = 0;
                delay = delay ? delay : 10 * MILLISECOND;
                start_at = now + delay;
            }
        }

        struct __kernel_timespec wait, *limit = 0;
        if (program == 0 || unwritten) {
            __u64 nanoseconds = program == 0 ? start_at - now : SECOND;
            wait.tv_sec = (__kernel_time64_t)(nanoseconds / SECOND);
            wait.tv_nsec = (long long)(nanoseconds % SECOND);
            limit = &wait;
        }
        switch (call(__NR_rt_sigtimedwait, (long)&awaited, 0, (long)limit, sizeof awaited, 0)) {
        case SIGUSR1:
            call(__NR_close, STDOUT_WRITER, 0, 0, 0, 0);
            call(__NR_close, STDERR_WRITER, 0, 0, 0, 0);
            break;
        case SIGHUP: close_stdin(); break;
        }

        int status = 0;
        if (program > 0 && call(__NR_wait4, program, (long)&status, WNOHANG, 0, 0) == program) {
            if (status == 0) call(__NR_exit_group, 0, 0, 0, 0, 0);
            now = clock();
            if (now - started_at >= 60 * SECOND) delay = 0;
            start_at = now + delay;
            delay = delay == 0 ? 10 * MILLISECOND : delay * 2 > 5 * SECOND ? 5 * SECOND : delay * 2;
            program = 0;
        }
        unwritten = reap_others(program);
    }
}

/* The kernel starts a process with argc, argv and envp on the stack. */
#if defined(__x86_64__)
__asm__(".globl _start\n_start:\n\txor %ebp, %ebp\n\tmov %rsp, %rdi\n\tand $-16, %rsp\n\tcall keeper\n");
#elif defined(__aarch64__)
__asm__(".globl _start\n_start:\n\tmov x29, #0\n\tmov x0, sp\n\tbl keeper\n");
#endif
