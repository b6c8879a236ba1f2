// A program of another project that uses the installed libraries: headers and compiled code.
// SPDX-License-Identifier: GPL-2.0-or-later
#include <cstdio>

#include "all_headers.h"

int main() {
  auto pair = krg::seqpacket_pair();
  if (!pair || !krg::send_packet(pair->first.get(), "hello")) return 1;
  auto packet = krg::receive_packet(pair->second.get());
  if (!packet) return 1;
  std::printf("consumer got %s\n", packet->bytes.c_str());
}
