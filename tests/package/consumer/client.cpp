// A program of another project that uses KDDM sets. Outside of a session it says what is missing.
// SPDX-License-Identifier: GPL-2.0-or-later
#include <krg/shmem/client.h>

#include <cstdio>

int main() {
  auto client = krg::Client::connect();
  if (!client) {
    std::printf("%s\n", client.error().context.c_str());
    return 3;
  }
  auto sums = client->open_or_create_set("sums", sizeof(long));
  if (!sums) return 1;
  auto sum = sums->grab({7});
  if (!sum) return 1;
  std::printf("sum %ld\n", ++sum->as<long>());
}
