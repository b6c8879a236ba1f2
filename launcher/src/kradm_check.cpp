// SPDX-License-Identifier: GPL-2.0-or-later
#include "kradm_check.h"

#include <fmt/core.h>

#include <cstdio>
#include <nlohmann/json.hpp>

namespace krg {

nlohmann::json check_report(std::span<const Probe> probes) {
  nlohmann::json list = nlohmann::json::array();
  for (const Probe& probe : probes) {
    const Finding finding = probe.run();
    nlohmann::json entry{{"name", probe.name},
                         {"state", to_string(finding.state)},
                         {"detail", finding.detail},
                         {"required", probe.required}};
    if (finding.state != ProbeState::kOk) {
      entry["suffers"] = probe.suffers;
      entry["mend"] = finding.mend.empty() ? probe.mend : finding.mend;
    }
    list.push_back(std::move(entry));
  }
  return {{"probes", std::move(list)}};
}

std::string format_check_report(const nlohmann::json& report) {
  std::string text;
  for (const auto& probe : report.at("probes")) {
    text +=
        fmt::format("{:<26} {:<8} {}\n", probe.at("name").get<std::string>(),
                    probe.at("state").get<std::string>(), probe.at("detail").get<std::string>());
    if (!probe.contains("suffers")) continue;
    text += fmt::format("{:35} suffers: {}{}\n{:35} mend:    {}\n", "",
                        probe.at("suffers").get<std::string>(),
                        probe.at("required").get<bool>() ? " (required)" : "", "",
                        probe.at("mend").get<std::string>());
  }
  return text;
}

bool lacks_required(const nlohmann::json& report) {
  for (const auto& probe : report.at("probes")) {
    if (probe.at("required").get<bool>() && probe.at("state") == to_string(ProbeState::kLacking))
      return true;
  }
  return false;
}

int kradm_check(std::span<const std::string> arguments) {
  bool json = false;
  for (const std::string& argument : arguments) {
    if (argument != "--json") {
      fmt::print(stderr, "kradm check: unknown argument '{}' (usage: kradm check [--json])\n",
                 argument);
      return 2;
    }
    json = true;
  }
  const nlohmann::json report = check_report(machine_probes());
  fmt::print("{}", json ? report.dump(2) + "\n" : format_check_report(report));
  return lacks_required(report) ? 1 : 0;
}

}  // namespace krg
