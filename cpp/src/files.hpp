// The files of topics in the runtime directory: their names, and the sweeping of those that no
// topic names any more.
#pragma once

#include <cstddef>
#include <cstdint>

#include "layout.hpp"
#include "names.hpp"
#include "os.hpp"

namespace framegate::impl {

class Fd {
  public:
    explicit Fd(int fd) : fd_(fd) {}
    ~Fd() {
        if (fd_ >= 0) {
            close(fd_);
        }
    }
    Fd(const Fd&) = delete;
    Fd& operator=(const Fd&) = delete;
    int get() const { return fd_; }

  private:
    int fd_;
};

// "<stem>.ctl": the control file of the topic, which is also that of its first generation.
void control_file_name(char (&out)[kFileBytesMax], const char* stem);
// "<stem>.<id>.data", "<stem>.<id>.gen": data file of a generation, control file of a later one.
void data_file_name(char (&out)[kFileBytesMax], const char* stem, std::uint64_t id);
void generation_file_name(char (&out)[kFileBytesMax], const char* stem, std::uint64_t id);
// "<stem>.<id>.tmp": a control file before it gets its name.
void temporary_file_name(char (&out)[kFileBytesMax], const char* stem, std::uint64_t id);

// Bytes that the topic's files occupy, control files and generations together.
std::uint64_t bytes_of_topic(int directory, const char* stem);
// Removes what dead creators, resizers and unlinkers left: files of generations that no control
// file leads to, temporary files, sockets that nobody is bound to. With a stem only that topic's
// files (sockets do not carry it). Returns how many files it removed.
std::uint32_t sweep_orphans(int directory, const char* stem = nullptr);

}  // namespace framegate::impl
