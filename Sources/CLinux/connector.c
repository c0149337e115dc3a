#define _GNU_SOURCE
#include "ctr_linux.h"
#include <arpa/inet.h>
#include <errno.h>
#include <linux/cn_proc.h>
#include <linux/connector.h>
#include <linux/filter.h>
#include <linux/netlink.h>
#include <stddef.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

/* A message of the process connector as it lies in the socket's buffer: netlink header, connector header, event. The event is not aligned. */
enum {
    EVENT = NLMSG_HDRLEN + sizeof(struct cn_msg),
    WHAT = EVENT + offsetof(struct proc_event, what),
    EXIT_PID = EVENT + offsetof(struct proc_event, event_data.exit.process_pid),
    EXIT_TGID = EVENT + offsetof(struct proc_event, event_data.exit.process_tgid),
    EXIT_CODE = EVENT + offsetof(struct proc_event, event_data.exit.exit_code),
};

int ctr_exit_events_select(int fd, int pid, bool threads) {
    /* BPF loads in network order what the kernel wrote in its own. */
    struct sock_filter code[] = {
        BPF_STMT(BPF_LD | BPF_W | BPF_LEN, 0),
        BPF_JUMP(BPF_JMP | BPF_JGE | BPF_K, EXIT_CODE + 4, 0, 5),
        BPF_STMT(BPF_LD | BPF_W | BPF_ABS, WHAT),
        BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, htonl(PROC_EVENT_EXIT), 0, 3),
        BPF_STMT(BPF_LD | BPF_W | BPF_ABS, threads ? EXIT_TGID : EXIT_PID),
        BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, htonl((uint32_t)pid), 0, 1),
        BPF_STMT(BPF_RET | BPF_K, ~0u),
        BPF_STMT(BPF_RET | BPF_K, 0),
    };
    struct sock_fprog program = {.len = sizeof code / sizeof code[0], .filter = code};
    return setsockopt(fd, SOL_SOCKET, SO_ATTACH_FILTER, &program, sizeof program) < 0 ? -errno : 0;
}

int ctr_exit_events_open(int pid) {
    int fd = socket(AF_NETLINK, SOCK_DGRAM | SOCK_CLOEXEC | SOCK_NONBLOCK, NETLINK_CONNECTOR);
    if (fd < 0) return -errno;
    struct sockaddr_nl address = {.nl_family = AF_NETLINK, .nl_groups = CN_IDX_PROC};
    /* The filter first: not one event of others may get in. */
    int failure = ctr_exit_events_select(fd, pid, false);
    if (failure == 0 && bind(fd, (struct sockaddr *)&address, sizeof address) < 0) failure = -errno;
    if (failure == 0) {
        char message[NLMSG_SPACE(sizeof(struct cn_msg) + sizeof(uint32_t))];
        memset(message, 0, sizeof message);
        struct nlmsghdr header = {.nlmsg_len = NLMSG_LENGTH(sizeof(struct cn_msg) + sizeof(uint32_t)), .nlmsg_type = NLMSG_DONE};
        struct cn_msg body = {.id = {CN_IDX_PROC, CN_VAL_PROC}, .len = sizeof(uint32_t)};
        uint32_t listen = PROC_CN_MCAST_LISTEN;
        memcpy(message, &header, sizeof header);
        memcpy(message + NLMSG_HDRLEN, &body, sizeof body);
        memcpy(message + EVENT, &listen, sizeof listen);
        struct sockaddr_nl kernel = {.nl_family = AF_NETLINK};
        if (sendto(fd, message, header.nlmsg_len, 0, (struct sockaddr *)&kernel, sizeof kernel) < 0) failure = -errno;
    }
    if (failure < 0) {
        close(fd);
        return failure;
    }
    return fd;
}

int ctr_exit_events_read(int fd, int *pid, int *status) {
    char message[512];
    struct sockaddr_nl sender;
    for (;;) {
        socklen_t length = sizeof sender;
        ssize_t got = recvfrom(fd, message, sizeof message, MSG_DONTWAIT, (struct sockaddr *)&sender, &length);
        if (got < 0 && errno == EINTR) continue;
        if (got < 0) return errno == EAGAIN ? 0 : -errno;
        /* Only the kernel's word counts. */
        if (sender.nl_pid != 0 || got < EXIT_CODE + 4) continue;
        uint32_t what, thread, code;
        memcpy(&what, message + WHAT, 4);
        memcpy(&thread, message + EXIT_PID, 4);
        memcpy(&code, message + EXIT_CODE, 4);
        if (what != PROC_EVENT_EXIT) continue;
        *pid = (int)thread;
        *status = (int)code;
        return 1;
    }
}
