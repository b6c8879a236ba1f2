// SPDX-License-Identifier: GPL-2.0-or-later
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <sys/mman.h>
#include <sys/socket.h>

#include "testing/descriptors_fixture.h"

namespace krg::testing {
namespace {

TEST_F(DescriptorsTest, FstatShowsTheHomesAttributes) {
  UniqueFd log = file("log", "0123456789", O_RDWR);
  ASSERT_EQ(fchmod(log.get(), 0604), 0);
  const timespec times[2] = {{1000, 1}, {2000, 2}};
  ASSERT_EQ(futimens(log.get(), times), 0);
  const pid_t body = place(kHome, kFar, {{1, log.get()}}, [] {
    struct stat shown {};
    if (fstat(1, &shown) != 0) return 1;
    if (shown.st_size != 10 || (shown.st_mode & 07777) != 0604) return 2;
    if (shown.st_mtim.tv_sec != 2000 || shown.st_mtim.tv_nsec != 2) return 3;
    if (ftruncate(1, 4) != 0 || fstat(1, &shown) != 0 || shown.st_size != 4) return 4;
    return kOk;
  });
  EXPECT_EQ(wait_for(body), 0);
  EXPECT_EQ(contents("log"), "0123");
}

TEST_F(DescriptorsTest, SeveralWritersShareOneOffset) {
  constexpr int kLines = 100;
  UniqueFd shared = file("out", "", O_WRONLY);  // no O_APPEND
  auto writer = [](char mark) {
    return [mark] {
      const std::string line = std::string(15, mark) + "\n";
      for (int i = 0; i < kLines; ++i)
        if (write(1, line.data(), line.size()) != 16) return 1;
      return kOk;
    };
  };
  std::vector<pid_t> writers = {start({{1, shared.get()}}, writer('a')),
                                place(kHome, kFar, {{1, shared.get()}}, writer('b')),
                                place(kHome, kFar, {{1, shared.get()}}, writer('c')),
                                place(kHome, kFarther, {{1, shared.get()}}, writer('d'))};
  for (pid_t pid : writers) EXPECT_EQ(wait_for(pid), 0);
  EXPECT_TRUE(write_all(shared.get(), "end"));
  const std::string all = contents("out");
  ASSERT_EQ(all.size(), 4u * kLines * 16 + 3);
  int count[4] = {};
  for (size_t at = 0; at + 16 <= all.size(); at += 16) {
    ASSERT_EQ(all.substr(at, 16), std::string(15, all[at]) + "\n");
    ++count[all[at] - 'a'];
  }
  for (int lines : count) EXPECT_EQ(lines, kLines);
}

TEST_F(DescriptorsTest, AppendersReopenTheFileByPath) {
  UniqueFd log = file("log", "begin\n", O_WRONLY | O_APPEND);
  const pid_t body = place(kHome, kFar, {{1, log.get()}}, [] {
    struct stat shown {};
    return fstat(1, &shown) == 0 && shown.st_nlink == 1 && (fcntl(1, F_GETFL) & O_APPEND) &&
                   write_all(1, "body\n")
               ? kOk
               : 1;
  });
  EXPECT_EQ(wait_for(body), 0);
  EXPECT_TRUE(write_all(log.get(), "home\n"));
  EXPECT_EQ(contents("log"), "begin\nbody\nhome\n");
}

TEST_F(DescriptorsTest, AReadOnlyFileIsReopenedAndItsOffsetComesBack) {
  UniqueFd input = file("input", "line 1\nline 2\nline 3\n", O_RDONLY);
  char line[8] = {};
  ASSERT_EQ(read(input.get(), line, 7), 7);
  struct stat here {};
  ASSERT_EQ(fstat(input.get(), &here), 0);
  const pid_t body = place(kHome, kFar, {{0, input.get()}}, [here] {
    struct stat shown {};
    if (fstat(0, &shown) != 0 || shown.st_dev != here.st_dev || shown.st_ino != here.st_ino)
      return 1;  // the file itself, at native speed
    char text[8];
    return read(0, text, 7) == 7 && std::string_view(text, 7) == "line 2\n" ? kOk : 2;
  });
  EXPECT_EQ(wait_for(body), 0);
  ASSERT_EQ(read(input.get(), line, 7), 7);
  EXPECT_EQ(std::string(line), "line 3\n");
}

TEST_F(DescriptorsTest, ADeletedFileIsReadFromHomeWithItsOffset) {
  UniqueFd here_document = file("doc", "line 1\nline 2\nline 3\n", O_RDONLY);
  ASSERT_EQ(unlink(path("doc").c_str()), 0);
  char line[8] = {};
  ASSERT_EQ(read(here_document.get(), line, 7), 7);
  const pid_t body = place(kHome, kFar, {{0, here_document.get()}}, [] {
    char text[8];
    if (read(0, text, 7) != 7 || std::string_view(text, 7) != "line 2\n") return 1;
    if (lseek(0, 0, SEEK_SET) != 0 || read(0, text, 7) != 7 ||
        std::string_view(text, 7) != "line 1\n")
      return 2;
    void* mapped = mmap(nullptr, 21, PROT_READ, MAP_PRIVATE, 0, 0);
    if (mapped == MAP_FAILED || std::string_view(static_cast<char*>(mapped), 6) != "line 1")
      return 3;
    return lseek(0, 14, SEEK_SET) == 14 ? kOk : 4;
  });
  ASSERT_GT(body, 0) << last_error_.message();
  EXPECT_EQ(wait_for(body), 0);
  ASSERT_EQ(read(here_document.get(), line, 7), 7);
  EXPECT_EQ(std::string(line), "line 3\n");
}

TEST_F(DescriptorsTest, APathThatLeadsToAnotherFileIsReadFromHome) {
  UniqueFd old = file("f", "the old contents", O_RDONLY);
  ASSERT_EQ(unlink(path("f").c_str()), 0);
  ASSERT_EQ(link(("/proc/self/fd/" + std::to_string(old.get())).c_str(), path("g").c_str()), -1);
  UniqueFd kept = file("kept", "the kept contents", O_RDONLY);
  const pid_t body =
      hold({{0, kept.get()}}, [] { return read_all(0) == "the kept contents" ? kOk : 1; });
  auto exported = export_from(kHome, body);
  ASSERT_TRUE(exported) << exported.error().message();
  ASSERT_EQ(rename(path("kept").c_str(), path("moved").c_str()), 0);
  file("kept", "a new file     !!", O_RDONLY);
  auto imported = import_at(kFar, body, *exported);
  ASSERT_TRUE(imported) << imported.error().message();
  start_body(kFar, body, std::move(*imported));
  EXPECT_EQ(wait_for(body), 0);
}

bool lock_part(int file, int command, short type, off_t start) {
  struct flock lock {};
  lock.l_type = type;
  lock.l_start = start;
  lock.l_len = 10;
  return fcntl(file, command, &lock) == 0;
}
bool is_locked(int file, off_t start) {
  struct flock lock {};
  lock.l_type = F_WRLCK;
  lock.l_start = start;
  lock.l_len = 10;
  return fcntl(file, F_GETLK, &lock) == 0 && lock.l_type == F_WRLCK;
}
// One byte, when it comes.
bool await(int from) {
  char byte;
  return read(from, &byte, 1) == 1;
}

TEST_F(DescriptorsTest, RecordLocksAreTheHomes) {
  UniqueFd shared = file("locked", "0123456789", O_RDWR);
  Pipe done, go;
  const std::string name = path("locked");
  const pid_t body =
      place(kHome, kFar, {{3, shared.get()}, {4, done.writer.get()}, {5, go.reader.get()}}, [] {
        if (!lock_part(3, F_SETLK, F_WRLCK, 5) || !lock_part(3, F_SETLK, F_WRLCK, 30)) return 1;
        if (is_locked(3, 5)) return 2;  // its own are none to it
        if (!write_all(4, "l") || !await(5)) return 3;
        if (!lock_part(3, F_SETLK, F_UNLCK, 5)) return 4;
        if (!write_all(4, "u") || !await(5)) return 5;
        if (lock_part(3, F_SETLK, F_WRLCK, 5) || errno != EAGAIN || !is_locked(3, 5)) return 6;
        if (!write_all(4, "w") || !lock_part(3, F_SETLKW, F_WRLCK, 5)) return 7;
        return kOk;  // and so ends its locks
      });
  ASSERT_GT(body, 0) << last_error_.message();
  const pid_t native = start({{4, done.reader.get()}, {5, go.writer.get()}}, [name] {
    UniqueFd own(open(name.c_str(), O_RDWR));
    if (!await(4) || !is_locked(own.get(), 0) || is_locked(own.get(), 15)) return 1;
    if (lock_part(own.get(), F_SETLK, F_WRLCK, 0) || !write_all(5, "g")) return 2;
    if (!await(4) || !lock_part(own.get(), F_SETLK, F_WRLCK, 0)) return 3;
    if (!is_locked(own.get(), 30) || !write_all(5, "g") || !await(4)) return 4;
    usleep(50000);
    if (!lock_part(own.get(), F_SETLK, F_UNLCK, 0)) return 5;
    return lock_part(own.get(), F_SETLKW, F_WRLCK, 30) ? kOk : 6;
  });
  done.reader.reset();
  go.writer.reset();
  EXPECT_EQ(wait_for(body), 0);
  EXPECT_EQ(wait_for(native), 0);
}

TEST_F(DescriptorsTest, DevicesAndDirectoriesAreReopened) {
  UniqueFd null(open("/dev/null", O_RDWR | O_CLOEXEC)),
      zero(open("/dev/zero", O_RDONLY | O_CLOEXEC));
  UniqueFd directory(open(directory_.c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC));
  UniqueFd handle(open(directory_.c_str(), O_PATH | O_CLOEXEC));
  file("inside", "x", O_RDONLY);
  const pid_t body = place(
      kHome, kFar, {{1, null.get()}, {3, zero.get()}, {4, directory.get()}, {5, handle.get()}}, [] {
        char c = 1;
        if (write(1, &c, 1) != 1 || read(3, &c, 1) != 1 || c != 0) return 1;
        UniqueFd inside(openat(4, "inside", O_RDONLY)), again(openat(5, "inside", O_RDONLY));
        return inside && again && (fcntl(5, F_GETFL) & O_PATH) ? kOk : 2;
      });
  ASSERT_GT(body, 0) << last_error_.message();
  EXPECT_EQ(wait_for(body), 0);
}

// Has what the test has open.
class OtherProcess {
 public:
  OtherProcess() : pid_(fork()) {
    while (pid_ == 0) pause();
  }
  OtherProcess(const OtherProcess&) = delete;
  OtherProcess& operator=(const OtherProcess&) = delete;
  ~OtherProcess() {
    kill(pid_, SIGKILL);
    waitpid(pid_, nullptr, 0);
  }

 private:
  const pid_t pid_;
};

// Reads a line byte by byte, as a shell does of what it cannot seek in.
std::string line_of(int file) {
  std::string line;
  for (char c; read(file, &c, 1) == 1 && c != '\n';) line += c;
  return line;
}

TEST_F(DescriptorsTest, ReadersOfSeveralNodesTakeTurnsAtOneOffset) {
  UniqueFd input = file("turns", "1\n2\n3\n4\n5\n6\n7\n8\n", O_RDONLY);
  const OtherProcess other;
  Pipe go, done;
  const auto reads = [](std::string_view first, std::string_view second) {
    return [first, second] {
      char byte;
      if (read(4, &byte, 1) != 1 || line_of(3) != first || write(5, "d", 1) != 1) return 1;
      return read(4, &byte, 1) == 1 && line_of(3) == second && write(5, "d", 1) == 1 ? kOk : 2;
    };
  };
  const std::vector<GivenFd> fds = {{3, input.get()}, {4, go.reader.get()}, {5, done.writer.get()}};
  const pid_t far = place(kHome, kFar, fds, reads("2", "5"));
  ASSERT_GT(far, 0) << last_error_.message();
  const auto turn = [&] {
    char byte;
    EXPECT_EQ(write(go.writer.get(), "g", 1), 1);
    fcntl(done.reader.get(), F_SETFL, O_NONBLOCK);
    EXPECT_TRUE(pump_until([&] { return read(done.reader.get(), &byte, 1) == 1; }));
  };
  EXPECT_EQ(line_of(input.get()), "1");
  turn();
  EXPECT_EQ(line_of(input.get()), "3");
  EXPECT_EQ(line_of(input.get()), "4");
  turn();
  EXPECT_EQ(wait_for(far), 0);
  EXPECT_EQ(line_of(input.get()), "6");
}

TEST_F(DescriptorsTest, AnEventfdThatOthersHaveIsCountedAtHome) {
  const UniqueFd counter(eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK));
  const OtherProcess other;
  Pipe pipe;
  const pid_t body =
      place(kHome, kFar, {{1, pipe.writer.get()}, {7, counter.get()}, {8, counter.get()}}, [] {
        fcntl(7, F_SETFL, 0);
        uint64_t value = 5;
        if (write(8, &value, sizeof value) != sizeof value) return 1;
        // What was added is taken at home; what is added there comes here.
        do {
          if (read(7, &value, sizeof value) != sizeof value) return 2;
        } while (value == 5 && write(8, &value, sizeof value) == sizeof value);
        return value == 300 ? kOk : 3;
      });
  ASSERT_GT(body, 0) << last_error_.message();
  uint64_t value = 0;
  EXPECT_TRUE(pump_until([&] { return read(counter.get(), &value, sizeof value) > 0; }));
  EXPECT_EQ(value, 5u);
  value = 300;
  EXPECT_EQ(write(counter.get(), &value, sizeof value), ssize_t{sizeof value});
  EXPECT_EQ(wait_for(body), kOk);
}

// As while it is looked at whether a process waits for a connection.
TEST_F(DescriptorsTest, WhatOnlyKrgdHasStillIsNotWatched) {
  UniqueFd ours(socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0));
  UniqueFd epoll(epoll_create1(EPOLL_CLOEXEC));
  epoll_event event{};
  ASSERT_EQ(epoll_ctl(epoll.get(), EPOLL_CTL_ADD, ours.get(), &event), 0);
  for (const bool is_there : {true, false}) {
    std::vector<GivenFd> fds{{900, epoll.get()}};
    if (is_there) fds.push_back({901, ours.get()});  // by another number
    const pid_t held = hold(fds, [] { return kOk; });
    auto exported = export_from(kHome, held, WhichFds::kAll);
    EXPECT_EQ(exported.has_value(), !is_there);
    if (exported)
      node(kHome).descriptors.cancel_export(*exported);
    else
      EXPECT_NE(exported.error().context.find("was closed"), std::string::npos);
    end(held);
  }
}

TEST_F(DescriptorsTest, WhatCannotGoAlongIsNamed) {
  struct Case {
    int fd;
    const char* name;
  };
  const Case cases[] = {{epoll_create1(EPOLL_CLOEXEC), "epoll"},
                        {memfd_create("x", MFD_CLOEXEC), "memfd"},
                        {open("/dev/fuse", O_RDWR | O_CLOEXEC), "/dev/fuse"}};
  const OtherProcess other;  // which has them, too
  for (const Case& one : cases) {
    UniqueFd fd(one.fd);
    Pipe pipe;
    EXPECT_EQ(place(kHome, kFar, {{1, pipe.writer.get()}, {7, fd.get()}}, [] { return 0; }), -1);
    EXPECT_EQ(last_error_.errno_or(0), ENOTSUP);
    EXPECT_NE(last_error_.context.find("descriptor 7"), std::string::npos) << last_error_.context;
    EXPECT_NE(last_error_.context.find(one.name), std::string::npos) << last_error_.context;
  }
}

}  // namespace
}  // namespace krg::testing
