/* What Swift cannot import from the C library: system calls without a wrapper, variadic calls, and the constants that
 * need _GNU_SOURCE. Every function returns a value >= 0, or -errno; none touches global state. */
#ifndef CTR_LINUX_H
#define CTR_LINUX_H
/* No _GNU_SOURCE here: Swift imports the C library without it, and a second view of its types makes the two modules clash. */
#include <linux/openat2.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* --- files (open(2), openat2(2), splice(2), fcntl(2)) --- */
int ctr_openat(int dirfd, const char *path, int flags, unsigned mode);
int ctr_openat2(int dirfd, const char *path, uint64_t flags, uint64_t mode, uint64_t resolve);
int ctr_pipe2(int fds[2], int flags);
int ctr_dup3(int oldfd, int newfd, int flags);
int ctr_fcntl_int(int fd, int cmd, int arg);
/* Open file description locks: F_OFD_SETLK / F_OFD_GETLK over the whole file, write lock. */
int ctr_ofd_lock(int fd, bool wait);
int ctr_ofd_locked(int fd); /* 1 when another description holds it */
long ctr_splice_to_offset(int from, int to, int64_t *offset, size_t length, unsigned flags);
int ctr_close_range(unsigned first, unsigned last, unsigned flags);
int ctr_memfd_create(const char *name, unsigned flags);
int ctr_renameat2(int olddir, const char *old, int newdir, const char *new_, unsigned flags);
int ctr_ioctl_int(int fd, unsigned long request, long argument);

/* --- stores: durable names, extended attributes, free space (syncfs(2), renameat2(2), fsetxattr(2), statvfs(3)) --- */
int ctr_syncfs(int fd);
/* Fills the whole buffer (at most 256 bytes). */
int ctr_getrandom(void *buffer, size_t length);
/* With replace false an existing target is -EEXIST. */
int ctr_rename(int olddir, const char *old, int newdir, const char *new_, bool replace);
int ctr_fsetxattr(int fd, const char *name, const void *value, size_t length);
long ctr_fgetxattr(int fd, const char *name, void *value, size_t length);
long ctr_flistxattr(int fd, char *list, size_t length);
/* Bytes free for an unprivileged user, and size of the file system. */
int ctr_free_space(int fd, uint64_t *available, uint64_t *total);

/* --- the mount API (fsopen(2), open_tree(2), move_mount(2), mount_setattr(2)) --- */
int ctr_fsopen(const char *type, unsigned flags);
int ctr_fsconfig_string(int fd, const char *key, const char *value);
int ctr_fsconfig_flag(int fd, const char *key);
int ctr_fsconfig_create(int fd);
int ctr_fsmount(int fd, unsigned flags, unsigned attributes);
int ctr_open_tree(int dirfd, const char *path, unsigned flags);
int ctr_move_mount(int from, const char *from_path, int to, const char *to_path, unsigned flags);
int ctr_mount_setattr(int fd, const char *path, unsigned flags, uint64_t set, uint64_t clear, uint64_t propagation, int userns);
int ctr_mount(const char *source, const char *target, const char *type, unsigned long flags, const char *data);
int ctr_umount2(const char *target, int flags);
int ctr_pivot_root(const char *new_root, const char *put_old);

/* --- processes (clone3(2), pidfd_open(2), waitid(2), prctl(2)) --- */
/* fork-like clone3: returns 0 in the child. pidfd, when not NULL, gets a close-on-exec descriptor. cgroup < 0: the caller's.
 * Only for a process with one thread: the child goes on in the caller's code. */
int ctr_clone3(uint64_t flags, int *pidfd, int cgroup);
int ctr_pidfd_open(int pid, unsigned flags);
int ctr_pidfd_send_signal(int pidfd, int signal);
/* PIDFD_GET_INFO with PIDFD_INFO_EXIT (Linux 6.15): the raw wait status after somebody reaped it, or -errno. */
int ctr_pidfd_exit_status(int pidfd, int *status);
/* The kernel's process events (cn_proc), of which only PROC_EVENT_EXIT of the process pid reaches the socket: of its first thread, or with
 * ctr_exit_events_select(…, true) of every thread. Non-blocking, close-on-exec. Needs the initial pid and user namespaces: elsewhere it is silent. */
int ctr_exit_events_open(int pid);
int ctr_exit_events_select(int fd, int pid, bool threads);
/* 1 and the thread with its status in wait(2)'s encoding, 0 when there is none now; -ENOBUFS: some were lost. */
int ctr_exit_events_read(int fd, int *pid, int *status);
/* waitid with WNOWAIT or without; status in wait(2)'s encoding; returns the pid, 0 with WNOHANG when none. */
int ctr_waitid(int idtype, int id, int *status, int options);
int ctr_prctl(int option, unsigned long a, unsigned long b, unsigned long c, unsigned long d);
int ctr_setns(int fd, int flags);
int ctr_unshare(int flags);
int ctr_setgroups(const uint32_t *groups, size_t count);
int ctr_setresuid(uint32_t r, uint32_t e, uint32_t s);
int ctr_setresgid(uint32_t r, uint32_t e, uint32_t s);
int ctr_prlimit(int pid, int resource, uint64_t soft, uint64_t hard);
int ctr_getrlimit(int resource, uint64_t *soft, uint64_t *hard);
int ctr_seccomp_filter(const void *instructions, unsigned short count, unsigned flags);
int ctr_capset(uint64_t effective, uint64_t permitted, uint64_t inheritable);
int ctr_capget(uint64_t *effective, uint64_t *permitted, uint64_t *inheritable); /* of the caller */
/* Sets "lo" of the caller's network namespace up. */
int ctr_loopback_up(void);
/* Pseudo terminals (ioctl_tty(2)): the slave of a master by descriptor, unlocked; its window size. */
int ctr_pty_slave(int master);
int ctr_pty_resize(int terminal, unsigned short columns, unsigned short rows);
int ctr_pty_size(int terminal, unsigned short *columns, unsigned short *rows);
int ctr_controlling_terminal(int terminal);
/* bpf(2): loads a BPF_PROG_TYPE_CGROUP_DEVICE program of count instructions of 8 bytes; the descriptor is close-on-exec. */
int ctr_bpf_load_device_program(const void *instructions, unsigned count);
/* BPF_CGROUP_DEVICE with BPF_F_ALLOW_MULTI: the cgroup holds the program from here on. */
int ctr_bpf_attach_device_program(int cgroup, int program);
/* A new, empty session keyring with this name (keyctl(2), KEYCTL_JOIN_SESSION_KEYRING). */
int ctr_join_session_keyring(const char *name);
int ctr_execveat(int fd, const char *path, char *const argv[], char *const envp[], int flags);
/* One line of mount flags as statvfs tells them for an open descriptor: ST_RDONLY and the others. */
long ctr_mount_flags(int fd);
/* The magic number of the descriptor's file system (statfs(2)). */
long ctr_filesystem_magic(int fd);
int ctr_sethostname(const char *name, size_t length);
int ctr_setdomainname(const char *name, size_t length);

/* From a program with several threads: child runs only async-signal-safe code between vfork and exec.
 * fd_map[i] becomes descriptor i in the child for i < fd_count (-1 leaves it closed); all others are closed.
 * New session, default signals, empty mask. Returns the pid; an exec failure is returned as -errno. */
int ctr_spawn(const char *path, char *const argv[], char *const envp[], const char *cwd, const int *fd_map, int fd_count, bool new_session);

enum {
    CTR_SPAWN_SESSION = 1,
    CTR_SPAWN_DIE_WITH_PARENT = 2, /* SIGKILL when the caller ends, without a moment in which it could be missed */
    CTR_SPAWN_OOM_NEUTRAL = 4,     /* oom_score_adj 0: the guards' own protection is not the child's */
};
/* Raises the soft limit of open files to `wanted`, or to the hard one where that is lower. What ctr_spawn and ctr_spawn_with start from then
 * on has the limits that there were; before the caller executes another program itself, it restores them. */
int ctr_raise_descriptors(uint64_t wanted);
int ctr_restore_descriptors(void);
/* The same with a set of flags. */
int ctr_spawn_with(const char *path, char *const argv[], char *const envp[], const char *cwd, const int *fd_map, int fd_count, unsigned flags);

/* The keeper: map[i] becomes descriptor i of `count`, all others are closed; a session of its own, "/" as its directory, protected from the
 * kernel's memory killer as far as the host allows, in the version 2 directory `cgroup` (< 0: the caller's) and, by the open "tasks" files
 * in `entrances`, in version 1 ones. Returns the pid, also of a caller that ends at once; an exec failure is returned as -errno. All signals
 * are blocked in it. */
int ctr_spawn_guards(const char *path, char *const argv[], char *const envp[], const int *map, int count, int cgroup, const int *entrances,
                     int entrance_count);

/* environ(7), which Swift does not import. */
char *const *ctr_environ(void);

/* --- signals, epoll, timers, clocks --- */
int ctr_signalfd(const int *signals, int count); /* blocks the signals too; CLOEXEC, NONBLOCK */
int ctr_block_signals(const int *signals, int count);
int ctr_unblock_all_signals(void);
/* A counter (eventfd(2)); CLOEXEC, NONBLOCK. */
int ctr_eventfd(void);
int ctr_timerfd(int clock);
int ctr_timerfd_arm(int fd, int64_t nanoseconds); /* relative, once; 0 disarms */
int64_t ctr_clock_ns(int clock);

/* epoll(7). Events come with the token that was given with the descriptor. */
struct ctr_event { uint64_t token; uint32_t events; };
int ctr_epoll_create(void);
int ctr_epoll_ctl(int epoll, int operation, int fd, uint32_t events, uint64_t token);
/* At most 64 events; a timeout in milliseconds, -1 for none. 0 also when a signal came in between. */
int ctr_epoll_wait(int epoll, struct ctr_event *events, int count, int timeout);
/* Exactly these signals are blocked from now on, those of `ignored` are ignored. */
int ctr_set_signals(const int *blocked, int blocked_count, const int *ignored, int ignored_count);

/* inotify(7): a new instance, close-on-exec and non-blocking, that watches path. */
int ctr_inotify(const char *path, uint32_t mask);
int ctr_inotify_open(void);
int ctr_inotify_add(int fd, const char *path, uint32_t mask);
int ctr_inotify_remove(int fd, int watch);

/* --- sockets --- */
/* path up to 107 bytes. */
int ctr_unix_listen(const char *path, int backlog, unsigned mode);
int ctr_unix_connect(const char *path, bool nonblocking);
int ctr_accept4(int fd, int flags);
int ctr_socketpair(int type, int fds[2]);
int ctr_peer_credentials(int fd, uint32_t *pid, uint32_t *uid, uint32_t *gid);
/* One message of length bytes with at most one descriptor (fd < 0: none). */
long ctr_send_fd(int socket, const void *data, size_t length, int fd, int flags);
/* *fd is -1 when none came; what comes is close-on-exec. */
long ctr_recv_fd(int socket, void *data, size_t length, int *fd, int flags);
int ctr_set_peek_offset(int socket, int offset);

/* The same with up to 16 descriptors; *count is the room in fds and then how many came. */
long ctr_send_fds(int socket, const void *data, size_t length, const int *fds, int count, int flags);
long ctr_recv_fds(int socket, void *data, size_t length, int *fds, int *count, int flags);
/* How many bytes may wait in the queue of a sending socket, beyond the host's limit where the caller may. */
int ctr_queue_size(int socket, int bytes);

/* --- standard streams (splice(2), sendfile(2), memfd_create(2), termios(3)) --- */
/* At the file positions; flags as in splice(2). */
long ctr_splice(int from, int to, size_t length, unsigned flags);
/* At the position of `from`, which moves in the kernel. */
long ctr_sendfile(int to, int from, size_t length);
int ctr_punch_hole(int fd, int64_t offset, int64_t length);
int ctr_pipe_size(int pipe);
/* Bytes that wait in a pipe, a FIFO or a socket (FIONREAD). */
int ctr_unread(int pipe);
/* A memfd that was made with MFD_ALLOW_SEALING grows and shrinks no more; whether that is so. */
int ctr_seal_size(int memfd);
/* Nothing of it changes any more. */
int ctr_seal(int memfd);
int ctr_seals_size(int memfd);
/* The character that ends the input of a terminal. */
int ctr_pty_end_of_file(int terminal);

/* --- memory --- */
/* Gives back what a process with one thread has used and does not need now: free pages of the heap, and the stack below the caller. */
void ctr_trim_memory(void);

/* --- checksums --- */
/* CRC-32 (polynomial 0xEDB88320) of data that follows what gave `before`; 0 to begin. */
uint32_t ctr_crc32(uint32_t before, const void *data, size_t length);

/* --- constants --- */
extern const int CTR_O_PATH, CTR_O_TMPFILE;
extern const uint64_t CTR_CLONE_NEWNS, CTR_CLONE_NEWPID, CTR_CLONE_NEWUTS, CTR_CLONE_NEWIPC, CTR_CLONE_NEWNET, CTR_CLONE_NEWUSER,
    CTR_CLONE_NEWCGROUP, CTR_CLONE_NEWTIME;
extern const int CTR_P_PIDFD, CTR_P_PID, CTR_P_ALL, CTR_WNOWAIT;

bool ctr_wifexited(int status);
int ctr_wexitstatus(int status);
bool ctr_wifsignaled(int status);
int ctr_wtermsig(int status);
bool ctr_s_isdir(unsigned mode);
bool ctr_s_isreg(unsigned mode);
bool ctr_s_ischr(unsigned mode);
bool ctr_s_islnk(unsigned mode);
uint64_t ctr_makedev(unsigned major, unsigned minor);
unsigned ctr_major(uint64_t device);
unsigned ctr_minor(uint64_t device);
#endif
