// A library that is opened while threads run (spread_mappings.c): data of all kinds, relocated.
// SPDX-License-Identifier: GPL-2.0-or-later
int counter = 7;
static int zeros[5000];
static int* const first = &zeros[0];
static int* last = &zeros[4999];

int count(void) {
  ++*first;
  *last += 2;
  return counter++ + *first * 100 + *last * 1000;
}
