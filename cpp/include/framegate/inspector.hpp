// Looking at a topic from C++ without taking part: RAII over shm.h.
#pragma once

#include <memory>
#include <string_view>
#include <vector>

#include "framegate/types.hpp"

namespace framegate {

/// Move-only. Numbers are a snapshot of moving things.
class Inspector {
  public:
    static Result<Inspector> open(std::string_view name) {
        fg_inspector* raw = nullptr;
        if (const fg_status status = fg_inspector_open(name.data(), name.size(), &raw);
            status != FG_OK) {
            return Error::last(status);
        }
        return Inspector(raw);
    }

    Result<fg_topic_info> info() const {
        fg_topic_info info{};
        info.struct_bytes = sizeof info;
        const fg_status status = fg_inspector_get_info(raw_.get(), &info);
        if (status != FG_OK) {
            return Error::last(status);
        }
        return info;
    }

    Result<fg_topic_stats> stats() const {
        fg_topic_stats stats{};
        stats.struct_bytes = sizeof stats;
        const fg_status status = fg_inspector_stats(raw_.get(), &stats);
        if (status != FG_OK) {
            return Error::last(status);
        }
        return stats;
    }

    Result<std::vector<fg_participant>> participants() const {
        std::vector<fg_participant> rows(FG_PARTICIPANTS_MAX);
        std::size_t count = 0;
        const fg_status status =
            fg_inspector_participants(raw_.get(), rows.data(), rows.size(), &count);
        if (status != FG_OK) {
            return Error::last(status);
        }
        rows.resize(count < rows.size() ? count : rows.size());
        return rows;
    }

    /// What each slot holds and who holds it.
    Result<std::vector<fg_slot>> slots() const {
        std::size_t count = 0;
        fg_status status = fg_inspector_slots(raw_.get(), nullptr, 0, &count);
        std::vector<fg_slot> rows(count);
        if (status == FG_OK) {
            status = fg_inspector_slots(raw_.get(), rows.data(), rows.size(), &count);
        }
        if (status != FG_OK) {
            return Error::last(status);
        }
        return rows;
    }

  private:
    struct Close {
        void operator()(fg_inspector* raw) const { fg_inspector_close(raw); }
    };
    explicit Inspector(fg_inspector* raw) : raw_(raw) {}
    std::unique_ptr<fg_inspector, Close> raw_;
};

}  // namespace framegate
