// Needs a function of libgomp that libkrgomp does not have.
// SPDX-License-Identifier: GPL-2.0-or-later
#include <openacc.h>

int devices_of_openacc(void) {
  return acc_get_num_devices(acc_device_host);
}
