// PageChanges: the bytes of a page that differ from its twin (what it was when both sides had the
// same), as they travel to others, who put just these bytes into their copies: so two nodes may
// write different bytes of one page at a time. Pure: no I/O. Threads: any; programs may write the
// page meanwhile: what they write while it is looked at is found, or is found the next time.
// SPDX-License-Identifier: GPL-2.0-or-later
#pragma once

#include <cstddef>
#include <span>
#include <string>
#include <string_view>

namespace krg {

// Appends the bytes in which `page` differs from `twin`, and makes `twin` the same. Returns whether
// there were any. REQUIRES: both have the same size, a multiple of 8, and are aligned to 8.
bool take_changes(std::span<const std::byte> page, std::span<std::byte> twin, std::string& changes);
// Puts the bytes at the beginning of `changes` into the page and, if there is one, its twin, and
// takes them off. False: they are none of this page.
bool put_changes(std::string_view& changes, std::span<std::byte> page, std::span<std::byte> twin);

}  // namespace krg
