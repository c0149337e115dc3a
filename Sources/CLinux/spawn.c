#define _GNU_SOURCE
#include "ctr_linux.h"
#include <errno.h>
#include <fcntl.h>
#include <sched.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

/* The child of a program with several threads shares its memory until exec (CLONE_VM | CLONE_VFORK), on a stack of its own, with
 * all signals blocked, and calls nothing but plain system calls. */
struct plan {
    const char *path, *cwd;
    char *const *argv, *const *envp;
    const int *map;
    int count, failure;
    unsigned flags;
    pid_t parent;
    sigset_t empty;
};

/* The limit of open files before the caller raised its own; rlim_max 0: it did not. */
static struct rlimit original;

int ctr_raise_descriptors(uint64_t wanted) {
    struct rlimit limit;
    if (getrlimit(RLIMIT_NOFILE, &limit) < 0) return -errno;
    struct rlimit raised = {.rlim_cur = wanted < limit.rlim_max ? wanted : limit.rlim_max, .rlim_max = limit.rlim_max};
    if (raised.rlim_cur <= limit.rlim_cur) return 0;
    if (setrlimit(RLIMIT_NOFILE, &raised) < 0) return -errno;
    original = limit;
    return 0;
}

int ctr_restore_descriptors(void) {
    if (original.rlim_max && setrlimit(RLIMIT_NOFILE, &original) < 0) return -errno;
    original.rlim_max = 0;
    return 0;
}

static int child(void *context) {
    struct plan *plan = context;
    struct sigaction standard;
    memset(&standard, 0, sizeof standard);
    standard.sa_handler = SIG_DFL;
    for (int signal = 1; signal < 65; signal++)
        if (signal != SIGKILL && signal != SIGSTOP) sigaction(signal, &standard, NULL);
    if (plan->flags & CTR_SPAWN_SESSION && setsid() < 0) goto failed;
    if (plan->flags & CTR_SPAWN_DIE_WITH_PARENT) {
        if (prctl(PR_SET_PDEATHSIG, SIGKILL, 0, 0, 0) < 0) goto failed;
        /* A parent that died before the line above sends nothing any more; the child has another one now. */
        if (getppid() != plan->parent) _exit(127);
    }
    if (plan->flags & CTR_SPAWN_OOM_NEUTRAL) {
        int file = open("/proc/self/oom_score_adj", O_WRONLY | O_CLOEXEC);
        if (file >= 0) {
            ssize_t ignored = write(file, "0", 1);
            (void)ignored;
            close(file);
        }
    }
    if (plan->cwd && chdir(plan->cwd) < 0) goto failed;
    /* First out of the way of the targets, then onto them: a source may itself be another's target. */
    int high[64];
    for (int i = 0; i < plan->count; i++) {
        high[i] = plan->map[i] < 0 ? -1 : fcntl(plan->map[i], F_DUPFD_CLOEXEC, plan->count);
        if (plan->map[i] >= 0 && high[i] < 0) goto failed;
    }
    for (int i = 0; i < plan->count; i++) {
        if (high[i] < 0) close(i);
        else if (dup2(high[i], i) < 0) goto failed;
    }
    if (syscall(SYS_close_range, plan->count, ~0u, 4u /* CLOSE_RANGE_CLOEXEC */) < 0) goto failed;
    /* Last: a limit that was lowered would stand in the way above. */
    if (original.rlim_max && setrlimit(RLIMIT_NOFILE, &original) < 0) goto failed;
    sigprocmask(SIG_SETMASK, &plan->empty, NULL);
    execve(plan->path, plan->argv, plan->envp);
failed:
    plan->failure = errno;
    _exit(127);
}

int ctr_spawn(const char *path, char *const argv[], char *const envp[], const char *cwd, const int *fd_map, int fd_count, bool new_session) {
    return ctr_spawn_with(path, argv, envp, cwd, fd_map, fd_count, new_session ? CTR_SPAWN_SESSION : 0);
}

int ctr_spawn_with(const char *path, char *const argv[], char *const envp[], const char *cwd, const int *fd_map, int fd_count, unsigned flags) {
    if (fd_count < 0 || fd_count > 64) return -EINVAL;
    struct plan plan = {.path = path, .cwd = cwd, .argv = argv, .envp = envp, .map = fd_map, .count = fd_count, .flags = flags,
                        .parent = getpid()};
    sigset_t all, before;
    sigemptyset(&plan.empty);
    sigfillset(&all);
    const size_t size = 64 * 1024;
    char *stack = mmap(NULL, size, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_STACK, -1, 0);
    if (stack == MAP_FAILED) return -errno;
    pthread_sigmask(SIG_SETMASK, &all, &before);
    int pid = clone(child, stack + size, CLONE_VM | CLONE_VFORK | SIGCHLD, &plan);
    int failure = pid < 0 ? errno : plan.failure;
    pthread_sigmask(SIG_SETMASK, &before, NULL);
    munmap(stack, size);
    if (pid < 0) return -failure;
    if (failure) {
        waitpid(pid, NULL, 0);
        return -failure;
    }
    return pid;
}

char *const *ctr_environ(void) { return environ; }
