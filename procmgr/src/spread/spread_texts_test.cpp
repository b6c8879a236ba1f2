// SPDX-License-Identifier: GPL-2.0-or-later
#include "spread/spread_texts.h"

#include <gtest/gtest.h>

namespace krg {
namespace {

using std::string_literals::operator""s;

TEST(SpreadTexts, CommandLine) {
  EXPECT_EQ(command_line("ab\0c\0HOME=/\0"s, 5), "ab\0c\0"s);
  EXPECT_EQ(command_line("ab\0c\0"s, 5), "ab\0c\0"s);
  EXPECT_EQ(command_line(""s, 0), "");
}

TEST(SpreadTexts, ACommandLineThatWasWrittenOverEndsWithItsFirstZero) {
  EXPECT_EQ(command_line("title"s, 5), "title");
  EXPECT_EQ(command_line("title: more\0PATH=/\0"s, 5), "title: more");
}

TEST(SpreadTexts, StateOfAThread) {
  EXPECT_EQ(shown_state('R', '?', false), 'R');
  EXPECT_EQ(shown_state('t', '?', false), 'S') << "it waits in krgd's hand";
  EXPECT_EQ(shown_state('t', 'R', false), 'R') << "it computes elsewhere";
  EXPECT_EQ(shown_state('t', 't', false), 'S');
  EXPECT_EQ(shown_state('t', '?', true), 'T');
  EXPECT_EQ(shown_state('t', 'R', true), 'T');
  EXPECT_EQ(shown_state('Z', '?', false), 'Z');
}

}  // namespace
}  // namespace krg
