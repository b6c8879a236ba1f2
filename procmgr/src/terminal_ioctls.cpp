// SPDX-License-Identifier: GPL-2.0-or-later
#include "terminal_ioctls.h"

#include <asm/termbits.h>
#include <linux/ioctl.h>
#include <sys/ioctl.h>
#include <sys/types.h>

#include <algorithm>
#include <array>
#include <iterator>

namespace krg {
namespace {

// As the kernel has them, which are not the C library's.
constexpr uint32_t kModes = sizeof(struct termios), kModes2 = sizeof(struct termios2);
constexpr uint32_t kSize = sizeof(struct winsize), kInt = sizeof(int), kPid = sizeof(pid_t);

constexpr TerminalIoctl kCarriedOut[] = {
    {TCGETS, 0, kModes},    {TCSETS, kModes, 0},    {TCSETSW, kModes, 0},   {TCSETSF, kModes, 0},
    {TCGETS2, 0, kModes2},  {TCSETS2, kModes2, 0},  {TCSETSW2, kModes2, 0}, {TCSETSF2, kModes2, 0},
    {TIOCGWINSZ, 0, kSize}, {TIOCSWINSZ, kSize, 0}, {TIOCGPGRP, 0, kPid},   {TIOCSPGRP, kPid, 0},
    {TIOCGSID, 0, kPid},    {TIOCGPTN, 0, kInt},    {TIOCSPTLCK, kInt, 0},  {TIOCGPTLCK, 0, kInt},
    {TIOCPKT, kInt, 0},     {TIOCGPKT, 0, kInt},    {TIOCOUTQ, 0, kInt},    {TIOCGETD, 0, kInt},
    {TCFLSH, 0, 0},         {TCXONC, 0, 0},         {TCSBRK, 0, 0},         {TCSBRKP, 0, 0},
};

constexpr uint32_t kMost = std::max(kModes2, kModes);

}  // namespace

bool TerminalIoctl::is_brought() const {
  return _IOC_DIR(command) != _IOC_NONE;
}

std::optional<TerminalIoctl> terminal_ioctl(uint32_t command) {
  const auto found = std::find_if(std::begin(kCarriedOut), std::end(kCarriedOut),
                                  [&](const auto& known) { return known.command == command; });
  return found == std::end(kCarriedOut) ? std::nullopt : std::optional(*found);
}

Result<std::string> carry_out_ioctl(int terminal, const TerminalIoctl& what, uint64_t argument,
                                    std::string_view in) {
  if (in.size() < what.bytes_in) return errno_error("ioctl", EINVAL);
  std::array<char, kMost> bytes{};
  std::copy_n(in.begin(), what.bytes_in, bytes.begin());
  const bool is_number = what.bytes_in == 0 && what.bytes_out == 0;
  const int done = is_number ? ioctl(terminal, what.command, argument)
                             : ioctl(terminal, what.command, bytes.data());
  if (done != 0) return errno_error("ioctl");
  return std::string(bytes.data(), what.bytes_out);
}

}  // namespace krg
