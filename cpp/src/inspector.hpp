// An inspector maps the control file read-only and looks. It is no participant and changes nothing.
#pragma once

#include <cstddef>

#include "fork.hpp"
#include "framegate/shm.h"
#include "layout.hpp"
#include "os.hpp"
#include "slots.hpp"

namespace framegate::impl {

class Inspector {
  public:
    static fg_status open(const char* name, std::size_t name_bytes, Inspector** out);
    fg_status info(fg_topic_info* out) const;
    fg_status schema(fg_array* out, std::size_t capacity, std::size_t* count) const;
    fg_status metadata(void* out, std::size_t capacity, std::size_t* bytes,
                       std::uint32_t* generation) const;
    fg_status stats(fg_topic_stats* out) const;
    fg_status participants(fg_participant* out, std::size_t capacity, std::size_t* count) const;
    fg_status slots(fg_slot* out, std::size_t capacity, std::size_t* count) const;
    void close();

  private:
    static constexpr int kDirectory = 0;
    static constexpr int kControl = 1;

    // The newest generation: its mapping, for as long as this object lives.
    class Newest {
      public:
        explicit Newest(const Inspector& inspector);
        ~Newest() { pthread_mutex_unlock(&inspector_.mutex_); }
        Newest(const Newest&) = delete;
        Newest& operator=(const Newest&) = delete;
        const SegmentView& view() const { return inspector_.newest_view_; }
        const Identity& identity() const { return inspector_.newest_; }

      private:
        const Inspector& inspector_;
    };

    fg_status open_files();
    bool map_generation(std::uint64_t id) const;
    fg_status usable() const;
    bool is_alive(std::uint32_t index) const;
    void destroy();

    ForkNode node_;
    Identity identity_{};
    SegmentView view_;
    unsigned char* control_ = nullptr;
    // Under mutex_; a cache, so looking stays const.
    mutable pthread_mutex_t mutex_ = PTHREAD_MUTEX_INITIALIZER;
    mutable Identity newest_{};
    mutable SegmentView newest_view_;
    mutable unsigned char* newest_control_ = nullptr;  // nullptr: the first generation
    char name_[FG_TOPIC_NAME_BYTES_MAX + 1] = {};
    char stem_[FG_TOPIC_FILE_NAME_BYTES_MAX] = {};
};

}  // namespace framegate::impl
