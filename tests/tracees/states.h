/* What the states share: see states.c. SPDX-License-Identifier: GPL-2.0-or-later */
#pragma once

#include <pthread.h>

#include "features.h"

void process_settings(void);
void sequences(void);
void vectors(void);
