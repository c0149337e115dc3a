#define _GNU_SOURCE
#include "ctr_linux.h"
#include <errno.h>
#include <fcntl.h>
#include <grp.h>
#include <linux/bpf.h>
#include <linux/capability.h>
#include <linux/filter.h>
#include <linux/keyctl.h>
#include <linux/mount.h>
#include <linux/sched.h>
#include <linux/seccomp.h>
#include <net/if.h>
#include <sched.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/mount.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/signalfd.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/statfs.h>
#include <sys/statvfs.h>
#include <sys/syscall.h>
#include <sys/sysmacros.h>
#include <sys/timerfd.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#define RETURN(expression) do { long r_ = (expression); return r_ < 0 ? -errno : r_; } while (0)

int ctr_openat(int dirfd, const char *path, int flags, unsigned mode) { RETURN(openat(dirfd, path, flags, mode)); }
int ctr_openat2(int dirfd, const char *path, uint64_t flags, uint64_t mode, uint64_t resolve) {
    struct open_how how = {.flags = flags, .mode = mode, .resolve = resolve};
    RETURN(syscall(SYS_openat2, dirfd, path, &how, sizeof how));
}
int ctr_pipe2(int fds[2], int flags) { RETURN(pipe2(fds, flags)); }
int ctr_dup3(int oldfd, int newfd, int flags) { RETURN(dup3(oldfd, newfd, flags)); }
int ctr_fcntl_int(int fd, int cmd, int arg) { RETURN(fcntl(fd, cmd, arg)); }
int ctr_ofd_lock(int fd, bool wait) {
    struct flock lock = {.l_type = F_WRLCK, .l_whence = SEEK_SET};
    RETURN(fcntl(fd, wait ? F_OFD_SETLKW : F_OFD_SETLK, &lock));
}
int ctr_ofd_locked(int fd) {
    struct flock lock = {.l_type = F_WRLCK, .l_whence = SEEK_SET};
    if (fcntl(fd, F_OFD_GETLK, &lock) < 0) return -errno;
    return lock.l_type != F_UNLCK;
}
long ctr_splice_to_offset(int from, int to, int64_t *offset, size_t length, unsigned flags) {
    loff_t at = *offset;
    ssize_t moved = splice(from, NULL, to, &at, length, flags);
    if (moved < 0) return -errno;
    *offset = at;
    return moved;
}
int ctr_close_range(unsigned first, unsigned last, unsigned flags) { RETURN(syscall(SYS_close_range, first, last, flags)); }
int ctr_memfd_create(const char *name, unsigned flags) { RETURN(memfd_create(name, flags)); }
int ctr_renameat2(int olddir, const char *old, int newdir, const char *new_, unsigned flags) {
    RETURN(renameat2(olddir, old, newdir, new_, flags));
}
int ctr_ioctl_int(int fd, unsigned long request, long argument) { RETURN(ioctl(fd, request, argument)); }

int ctr_fsopen(const char *type, unsigned flags) { RETURN(syscall(SYS_fsopen, type, flags)); }
int ctr_fsconfig_string(int fd, const char *key, const char *value) {
    RETURN(syscall(SYS_fsconfig, fd, FSCONFIG_SET_STRING, key, value, 0));
}
int ctr_fsconfig_flag(int fd, const char *key) { RETURN(syscall(SYS_fsconfig, fd, FSCONFIG_SET_FLAG, key, NULL, 0)); }
int ctr_fsconfig_create(int fd) { RETURN(syscall(SYS_fsconfig, fd, FSCONFIG_CMD_CREATE, NULL, NULL, 0)); }
int ctr_fsmount(int fd, unsigned flags, unsigned attributes) { RETURN(syscall(SYS_fsmount, fd, flags, attributes)); }
int ctr_open_tree(int dirfd, const char *path, unsigned flags) { RETURN(syscall(SYS_open_tree, dirfd, path, flags)); }
int ctr_move_mount(int from, const char *from_path, int to, const char *to_path, unsigned flags) {
    RETURN(syscall(SYS_move_mount, from, from_path, to, to_path, flags));
}
int ctr_mount_setattr(int fd, const char *path, unsigned flags, uint64_t set, uint64_t clear, uint64_t propagation, int userns) {
    struct mount_attr attributes = {.attr_set = set, .attr_clr = clear, .propagation = propagation,
                                    .userns_fd = userns < 0 ? 0 : (uint64_t)userns};
    RETURN(syscall(SYS_mount_setattr, fd, path, flags, &attributes, sizeof attributes));
}
int ctr_mount(const char *source, const char *target, const char *type, unsigned long flags, const char *data) {
    RETURN(mount(source, target, type, flags, data));
}
int ctr_umount2(const char *target, int flags) { RETURN(umount2(target, flags)); }
int ctr_pivot_root(const char *new_root, const char *put_old) { RETURN(syscall(SYS_pivot_root, new_root, put_old)); }

int ctr_clone3(uint64_t flags, int *pidfd, int cgroup) {
    struct clone_args arguments = {.flags = flags, .exit_signal = SIGCHLD};
    if (pidfd) {
        arguments.flags |= CLONE_PIDFD;
        arguments.pidfd = (uint64_t)(uintptr_t)pidfd;
    }
    if (cgroup >= 0) {
        arguments.flags |= CLONE_INTO_CGROUP;
        arguments.cgroup = (uint64_t)cgroup;
    }
    RETURN(syscall(SYS_clone3, &arguments, sizeof arguments));
}
int ctr_pidfd_open(int pid, unsigned flags) { RETURN(syscall(SYS_pidfd_open, pid, flags)); }
int ctr_pidfd_send_signal(int pidfd, int signal) { RETURN(syscall(SYS_pidfd_send_signal, pidfd, signal, NULL, 0)); }

/* struct pidfd_info of linux/pidfd.h, first published size; Debian 12's headers are older than it. */
struct ctr_pidfd_info {
    uint64_t mask, cgroupid;
    uint32_t pid, tgid, ppid, ruid, rgid, euid, egid, suid, sgid, fsuid, fsgid;
    int32_t exit_code;
};
int ctr_pidfd_exit_status(int pidfd, int *status) {
    struct ctr_pidfd_info info = {.mask = 1u << 3 /* PIDFD_INFO_EXIT */};
    if (ioctl(pidfd, _IOWR(0xFF, 11, struct ctr_pidfd_info), &info) < 0) return -errno;
    if (!(info.mask & (1u << 3))) return -ENODATA;
    *status = info.exit_code;
    return 0;
}
int ctr_waitid(int idtype, int id, int *status, int options) {
    siginfo_t info;
    memset(&info, 0, sizeof info);
    if (waitid((idtype_t)idtype, (id_t)id, &info, options | WEXITED) < 0) return -errno;
    if (info.si_pid == 0) return 0;
    switch (info.si_code) {
    case CLD_EXITED: *status = (info.si_status & 0xff) << 8; break;
    case CLD_DUMPED: *status = (info.si_status & 0x7f) | 0x80; break;
    default: *status = info.si_status & 0x7f; break;
    }
    return info.si_pid;
}
int ctr_prctl(int option, unsigned long a, unsigned long b, unsigned long c, unsigned long d) { RETURN(prctl(option, a, b, c, d)); }
int ctr_setns(int fd, int flags) { RETURN(setns(fd, flags)); }
int ctr_unshare(int flags) { RETURN(unshare(flags)); }
int ctr_setgroups(const uint32_t *groups, size_t count) { RETURN(setgroups(count, groups)); }
int ctr_setresuid(uint32_t r, uint32_t e, uint32_t s) { RETURN(setresuid(r, e, s)); }
int ctr_setresgid(uint32_t r, uint32_t e, uint32_t s) { RETURN(setresgid(r, e, s)); }
int ctr_prlimit(int pid, int resource, uint64_t soft, uint64_t hard) {
    struct rlimit limit = {.rlim_cur = soft, .rlim_max = hard};
    RETURN(prlimit(pid, (__rlimit_resource_t)resource, &limit, NULL));
}
int ctr_getrlimit(int resource, uint64_t *soft, uint64_t *hard) {
    struct rlimit limit;
    if (getrlimit((__rlimit_resource_t)resource, &limit) < 0) return -errno;
    *soft = limit.rlim_cur;
    *hard = limit.rlim_max;
    return 0;
}
int ctr_seccomp_filter(const void *instructions, unsigned short count, unsigned flags) {
    struct sock_fprog program = {.len = count, .filter = (struct sock_filter *)instructions};
    RETURN(syscall(SYS_seccomp, SECCOMP_SET_MODE_FILTER, flags, &program));
}
int ctr_capset(uint64_t effective, uint64_t permitted, uint64_t inheritable) {
    struct __user_cap_header_struct header = {.version = _LINUX_CAPABILITY_VERSION_3};
    struct __user_cap_data_struct data[2] = {
        {(uint32_t)effective, (uint32_t)permitted, (uint32_t)inheritable},
        {(uint32_t)(effective >> 32), (uint32_t)(permitted >> 32), (uint32_t)(inheritable >> 32)},
    };
    RETURN(syscall(SYS_capset, &header, data));
}
int ctr_capget(uint64_t *effective, uint64_t *permitted, uint64_t *inheritable) {
    struct __user_cap_header_struct header = {.version = _LINUX_CAPABILITY_VERSION_3};
    struct __user_cap_data_struct data[2];
    if (syscall(SYS_capget, &header, data) < 0) return -errno;
    *effective = data[0].effective | (uint64_t)data[1].effective << 32;
    *permitted = data[0].permitted | (uint64_t)data[1].permitted << 32;
    *inheritable = data[0].inheritable | (uint64_t)data[1].inheritable << 32;
    return 0;
}
int ctr_loopback_up(void) {
    int fd = socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0);
    if (fd < 0) return -errno;
    struct ifreq request = {.ifr_name = "lo", .ifr_flags = IFF_UP};
    int failure = ioctl(fd, SIOCSIFFLAGS, &request) < 0 ? -errno : 0;
    close(fd);
    return failure;
}
int ctr_pty_slave(int master) {
    int unlocked = 0;
    if (ioctl(master, TIOCSPTLCK, &unlocked) < 0) return -errno;
    RETURN(ioctl(master, TIOCGPTPEER, O_RDWR | O_NOCTTY | O_CLOEXEC));
}
int ctr_pty_resize(int terminal, unsigned short columns, unsigned short rows) {
    struct winsize size = {.ws_col = columns, .ws_row = rows};
    RETURN(ioctl(terminal, TIOCSWINSZ, &size));
}
int ctr_pty_size(int terminal, unsigned short *columns, unsigned short *rows) {
    struct winsize size;
    if (ioctl(terminal, TIOCGWINSZ, &size) < 0) return -errno;
    *columns = size.ws_col;
    *rows = size.ws_row;
    return 0;
}
int ctr_controlling_terminal(int terminal) { RETURN(ioctl(terminal, TIOCSCTTY, 0)); }
int ctr_bpf_load_device_program(const void *instructions, unsigned count) {
    union bpf_attr attributes;
    memset(&attributes, 0, sizeof attributes);
    attributes.prog_type = BPF_PROG_TYPE_CGROUP_DEVICE;
    attributes.insns = (uint64_t)(uintptr_t)instructions;
    attributes.insn_cnt = count;
    attributes.license = (uint64_t)(uintptr_t) "Apache-2.0";
    RETURN(syscall(SYS_bpf, BPF_PROG_LOAD, &attributes, sizeof attributes));
}
int ctr_bpf_attach_device_program(int cgroup, int program) {
    union bpf_attr attributes;
    memset(&attributes, 0, sizeof attributes);
    attributes.target_fd = (uint32_t)cgroup;
    attributes.attach_bpf_fd = (uint32_t)program;
    attributes.attach_type = BPF_CGROUP_DEVICE;
    attributes.attach_flags = BPF_F_ALLOW_MULTI;
    RETURN(syscall(SYS_bpf, BPF_PROG_ATTACH, &attributes, sizeof attributes));
}
int ctr_join_session_keyring(const char *name) { RETURN(syscall(SYS_keyctl, KEYCTL_JOIN_SESSION_KEYRING, name, 0, 0, 0)); }
int ctr_execveat(int fd, const char *path, char *const argv[], char *const envp[], int flags) {
    RETURN(syscall(SYS_execveat, fd, path, argv, envp, flags));
}
long ctr_mount_flags(int fd) {
    struct statvfs status;
    if (fstatvfs(fd, &status) < 0) return -errno;
    return (long)status.f_flag;
}
long ctr_filesystem_magic(int fd) {
    struct statfs status;
    if (fstatfs(fd, &status) < 0) return -errno;
    return (long)status.f_type;
}
int ctr_sethostname(const char *name, size_t length) { RETURN(sethostname(name, length)); }
int ctr_setdomainname(const char *name, size_t length) { RETURN(setdomainname(name, length)); }

int ctr_signalfd(const int *signals, int count) {
    int blocked = ctr_block_signals(signals, count);
    if (blocked < 0) return blocked;
    sigset_t set;
    sigemptyset(&set);
    for (int i = 0; i < count; i++) sigaddset(&set, signals[i]);
    RETURN(signalfd(-1, &set, SFD_CLOEXEC | SFD_NONBLOCK));
}
int ctr_block_signals(const int *signals, int count) {
    sigset_t set;
    sigemptyset(&set);
    for (int i = 0; i < count; i++) sigaddset(&set, signals[i]);
    RETURN(sigprocmask(SIG_BLOCK, &set, NULL));
}
int ctr_unblock_all_signals(void) {
    sigset_t set;
    sigemptyset(&set);
    RETURN(sigprocmask(SIG_SETMASK, &set, NULL));
}
int ctr_set_signals(const int *blocked, int blocked_count, const int *ignored, int ignored_count) {
    struct sigaction ignore;
    memset(&ignore, 0, sizeof ignore);
    ignore.sa_handler = SIG_IGN;
    for (int i = 0; i < ignored_count; i++)
        if (sigaction(ignored[i], &ignore, NULL) < 0) return -errno;
    sigset_t set;
    sigemptyset(&set);
    for (int i = 0; i < blocked_count; i++) sigaddset(&set, blocked[i]);
    RETURN(sigprocmask(SIG_SETMASK, &set, NULL));
}
int ctr_epoll_create(void) { RETURN(epoll_create1(EPOLL_CLOEXEC)); }
int ctr_epoll_ctl(int epoll, int operation, int fd, uint32_t events, uint64_t token) {
    struct epoll_event event = {.events = events, .data = {.u64 = token}};
    RETURN(epoll_ctl(epoll, operation, fd, &event));
}
int ctr_epoll_wait(int epoll, struct ctr_event *events, int count, int timeout) {
    struct epoll_event ready[64];
    int got = epoll_wait(epoll, ready, count < 64 ? count : 64, timeout);
    if (got < 0) return errno == EINTR ? 0 : -errno;
    for (int i = 0; i < got; i++) events[i] = (struct ctr_event){.token = ready[i].data.u64, .events = ready[i].events};
    return got;
}
int ctr_eventfd(void) { RETURN(eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK)); }
int ctr_timerfd(int clock) { RETURN(timerfd_create(clock, TFD_CLOEXEC | TFD_NONBLOCK)); }
int ctr_timerfd_arm(int fd, int64_t ns) {
    struct itimerspec when = {.it_value = {.tv_sec = ns / 1000000000, .tv_nsec = ns % 1000000000}};
    RETURN(timerfd_settime(fd, 0, &when, NULL));
}
int64_t ctr_clock_ns(int clock) {
    struct timespec now;
    if (clock_gettime(clock, &now) < 0) return -errno;
    return (int64_t)now.tv_sec * 1000000000 + now.tv_nsec;
}

static int unix_address(struct sockaddr_un *address, const char *path) {
    size_t length = strlen(path);
    memset(address, 0, sizeof *address);
    address->sun_family = AF_UNIX;
    if (length == 0 || length >= sizeof address->sun_path) return -ENAMETOOLONG;
    memcpy(address->sun_path, path, length + 1);
    return 0;
}
int ctr_unix_listen(const char *path, int backlog, unsigned mode) {
    struct sockaddr_un address;
    int bad = unix_address(&address, path);
    if (bad) return bad;
    int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
    if (fd < 0) return -errno;
    /* fchmod before bind sets the mode of the file that bind makes, so no moment is open to others. */
    if (fchmod(fd, mode) < 0 || bind(fd, (struct sockaddr *)&address, sizeof address) < 0 || listen(fd, backlog) < 0) {
        int failure = -errno;
        close(fd);
        return failure;
    }
    return fd;
}
int ctr_unix_connect(const char *path, bool nonblocking) {
    struct sockaddr_un address;
    int bad = unix_address(&address, path);
    if (bad) return bad;
    int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | (nonblocking ? SOCK_NONBLOCK : 0), 0);
    if (fd < 0) return -errno;
    if (connect(fd, (struct sockaddr *)&address, sizeof address) < 0) {
        int failure = -errno;
        close(fd);
        return failure;
    }
    return fd;
}
int ctr_accept4(int fd, int flags) { RETURN(accept4(fd, NULL, NULL, flags)); }
int ctr_socketpair(int type, int fds[2]) { RETURN(socketpair(AF_UNIX, type, 0, fds)); }
int ctr_peer_credentials(int fd, uint32_t *pid, uint32_t *uid, uint32_t *gid) {
    struct ucred peer;
    socklen_t length = sizeof peer;
    if (getsockopt(fd, SOL_SOCKET, SO_PEERCRED, &peer, &length) < 0) return -errno;
    *pid = (uint32_t)peer.pid;
    *uid = peer.uid;
    *gid = peer.gid;
    return 0;
}
long ctr_send_fd(int socket, const void *data, size_t length, int fd, int flags) {
    struct iovec part = {.iov_base = (void *)data, .iov_len = length};
    union { char room[CMSG_SPACE(sizeof(int))]; struct cmsghdr align; } control;
    struct msghdr message = {.msg_iov = &part, .msg_iovlen = 1};
    if (fd >= 0) {
        memset(&control, 0, sizeof control);
        message.msg_control = control.room;
        message.msg_controllen = sizeof control.room;
        struct cmsghdr *header = CMSG_FIRSTHDR(&message);
        header->cmsg_level = SOL_SOCKET;
        header->cmsg_type = SCM_RIGHTS;
        header->cmsg_len = CMSG_LEN(sizeof(int));
        memcpy(CMSG_DATA(header), &fd, sizeof fd);
    }
    RETURN(sendmsg(socket, &message, flags | MSG_NOSIGNAL));
}
long ctr_recv_fd(int socket, void *data, size_t length, int *fd, int flags) {
    struct iovec part = {.iov_base = data, .iov_len = length};
    union { char room[CMSG_SPACE(sizeof(int))]; struct cmsghdr align; } control;
    struct msghdr message = {.msg_iov = &part, .msg_iovlen = 1, .msg_control = control.room, .msg_controllen = sizeof control.room};
    *fd = -1;
    ssize_t got = recvmsg(socket, &message, flags | MSG_CMSG_CLOEXEC);
    if (got < 0) return -errno;
    for (struct cmsghdr *header = CMSG_FIRSTHDR(&message); header; header = CMSG_NXTHDR(&message, header))
        if (header->cmsg_level == SOL_SOCKET && header->cmsg_type == SCM_RIGHTS) memcpy(fd, CMSG_DATA(header), sizeof *fd);
    return got;
}
int ctr_set_peek_offset(int socket, int offset) { RETURN(setsockopt(socket, SOL_SOCKET, SO_PEEK_OFF, &offset, sizeof offset)); }

const int CTR_O_PATH = O_PATH, CTR_O_TMPFILE = O_TMPFILE;
const uint64_t CTR_CLONE_NEWNS = CLONE_NEWNS, CTR_CLONE_NEWPID = CLONE_NEWPID, CTR_CLONE_NEWUTS = CLONE_NEWUTS,
               CTR_CLONE_NEWIPC = CLONE_NEWIPC, CTR_CLONE_NEWNET = CLONE_NEWNET, CTR_CLONE_NEWUSER = CLONE_NEWUSER,
               CTR_CLONE_NEWCGROUP = CLONE_NEWCGROUP, CTR_CLONE_NEWTIME = 0x00000080;
const int CTR_P_PIDFD = 3, CTR_P_PID = P_PID, CTR_P_ALL = P_ALL, CTR_WNOWAIT = WNOWAIT;

uint64_t ctr_makedev(unsigned major, unsigned minor) { return makedev(major, minor); }
unsigned ctr_major(uint64_t device) { return major(device); }
unsigned ctr_minor(uint64_t device) { return minor(device); }
bool ctr_wifexited(int status) { return WIFEXITED(status); }
int ctr_wexitstatus(int status) { return WEXITSTATUS(status); }
bool ctr_wifsignaled(int status) { return WIFSIGNALED(status); }
int ctr_wtermsig(int status) { return WTERMSIG(status); }
bool ctr_s_isdir(unsigned mode) { return S_ISDIR(mode); }
bool ctr_s_isreg(unsigned mode) { return S_ISREG(mode); }
bool ctr_s_ischr(unsigned mode) { return S_ISCHR(mode); }
bool ctr_s_islnk(unsigned mode) { return S_ISLNK(mode); }
