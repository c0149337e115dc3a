#define _GNU_SOURCE
#include "ctr_linux.h"
#include <errno.h>
#include <fcntl.h>
#include <linux/sched.h>
#include <signal.h>
#include <stdint.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <unistd.h>

/* The child shares its parent's memory until exec, on a stack of its own, and calls nothing but plain system calls: no page table is
 * copied, and an error is simply there when the parent goes on. */
struct guards {
    const char *path;
    char *const *argv, *const *envp;
    const int *map, *entrances;
    int count, entrance_count, failure;
};

static void become(struct guards *plan) {
    for (int i = 0; i < plan->entrance_count; i++) {
        ssize_t ignored = write(plan->entrances[i], "0", 1);
        (void)ignored;
    }
    if (setsid() < 0) goto failed;
    /* The lowest that the host allows: without CAP_SYS_RESOURCE it stays where it is. */
    int score = open("/proc/self/oom_score_adj", O_WRONLY | O_CLOEXEC);
    if (score >= 0) {
        ssize_t ignored = write(score, "-998", 4);
        (void)ignored;
        close(score);
    }
    /* First out of the way of the targets, then onto them: a source may itself be another's target. */
    int high[16];
    for (int i = 0; i < plan->count; i++)
        if ((high[i] = fcntl(plan->map[i], F_DUPFD_CLOEXEC, plan->count)) < 0) goto failed;
    for (int i = 0; i < plan->count; i++)
        if (dup2(high[i], i) < 0) goto failed;
    if (syscall(SYS_close_range, plan->count, ~0u, 4u /* CLOSE_RANGE_CLOEXEC */) < 0 || chdir("/") < 0) goto failed;
    execve(plan->path, plan->argv, plan->envp);
failed:
    plan->failure = errno;
    _exit(127);
}

/* clone3(2) whose child runs `body` on the stack that the arguments name; the C library has no wrapper. */
static long clone_into(struct clone_args *arguments, void (*body)(struct guards *), struct guards *plan) {
#if defined(__x86_64__)
    long result;
    register void (*r8)(struct guards *) __asm__("r8") = body;
    register struct guards *r9 __asm__("r9") = plan;
    __asm__ volatile("syscall\n\ttest %%rax, %%rax\n\tjnz 1f\n\txor %%ebp, %%ebp\n\tmov %%r9, %%rdi\n\tcall *%%r8\n\tud2\n1:"
                     : "=a"(result)
                     : "a"(SYS_clone3), "D"(arguments), "S"(sizeof *arguments), "r"(r8), "r"(r9)
                     : "rcx", "r11", "memory", "cc");
    return result;
#elif defined(__aarch64__)
    register long x0 __asm__("x0") = (long)arguments;
    register long x1 __asm__("x1") = sizeof *arguments;
    register long x8 __asm__("x8") = SYS_clone3;
    register void (*x9)(struct guards *) __asm__("x9") = body;
    register struct guards *x10 __asm__("x10") = plan;
    __asm__ volatile("svc 0\n\tcbnz x0, 1f\n\tmov x29, xzr\n\tmov x0, x10\n\tblr x9\n\tbrk 0\n1:"
                     : "+r"(x0)
                     : "r"(x1), "r"(x8), "r"(x9), "r"(x10)
                     : "memory", "cc");
    return x0;
#else
#error "no clone3 for this machine"
#endif
}

int ctr_spawn_guards(const char *path, char *const argv[], char *const envp[], const int *map, int count, int cgroup, const int *entrances,
                     int entrance_count) {
    if (count < 0 || count > 16) return -EINVAL;
    struct guards plan = {.path = path, .argv = argv, .envp = envp, .map = map, .count = count, .entrances = entrances,
                          .entrance_count = entrance_count};
    const size_t size = 32 * 1024;
    char *stack = mmap(NULL, size, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_STACK, -1, 0);
    if (stack == MAP_FAILED) return -errno;
    struct clone_args arguments = {.flags = CLONE_VM | CLONE_VFORK, .exit_signal = SIGCHLD, .stack = (uint64_t)(uintptr_t)stack,
                                   .stack_size = size};
    if (cgroup >= 0) {
        arguments.flags |= CLONE_INTO_CGROUP;
        arguments.cgroup = (uint64_t)cgroup;
    }
    sigset_t all, before;
    sigfillset(&all);
    sigprocmask(SIG_SETMASK, &all, &before);
    long pid = clone_into(&arguments, become, &plan);
    sigprocmask(SIG_SETMASK, &before, NULL);
    munmap(stack, size);
    if (pid < 0) return (int)pid;
    return plan.failure ? -plan.failure : (int)pid;
}
