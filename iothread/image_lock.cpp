// SPDX-License-Identifier: Apache-2.0
#include "iothread/image_lock.h"

#include <cerrno>
#include <fcntl.h>

#include "iothread/check.h"

namespace nbdm {

namespace {

// What may be done to an image, by number: QEMU's BLK_PERM_* as bits.
constexpr unsigned kConsistentRead = 1U << 0;
constexpr unsigned kWrite = 1U << 1;
constexpr unsigned kResize = 1U << 3;
constexpr unsigned kActions = 4;
// A shared lock on byte kDoneBase + i: the holder does i. On kExcludedBase + i: nobody else is to.
constexpr off_t kDoneBase = 100;
constexpr off_t kExcludedBase = 200;

struct Claim {
    unsigned done;
    unsigned excluded;
};

constexpr Claim claim_of(ImageUse use) noexcept {
    return {.done = kConsistentRead | (use == ImageUse::write ? kWrite : 0U),
            .excluded = use == ImageUse::read_anything ? 0U : kWrite | kResize};
}

struct flock one_byte(short type, off_t at) noexcept {
    struct flock lock {};
    lock.l_type = type;
    lock.l_whence = SEEK_SET;
    lock.l_start = at;
    lock.l_len = 1;
    return lock;
}

// 0 or an errno.
int lock_bytes(int fd, off_t base, unsigned bits) noexcept {
    for (unsigned i = 0; i < kActions; ++i) {
        struct flock lock = one_byte(F_RDLCK, base + static_cast<off_t>(i));
        if ((bits & (1U << i)) != 0 && ::fcntl(fd, F_OFD_SETLK, &lock) < 0) {
            return errno;
        }
    }
    return 0;
}

// Whether another holds a lock on one of the bytes.
bool is_any_locked(int fd, off_t base, unsigned bits) noexcept {
    for (unsigned i = 0; i < kActions; ++i) {
        struct flock lock = one_byte(F_WRLCK, base + static_cast<off_t>(i));
        if ((bits & (1U << i)) != 0 && ::fcntl(fd, F_OFD_GETLK, &lock) == 0 &&
            lock.l_type != F_UNLCK) {
            return true;
        }
    }
    return false;
}

}  // namespace

// First what is done here is made known, then what others do is looked at: of two that come at
// once at least one sees the other.
bool lock_image(int fd, const std::string& path, ImageUse use) {
    const Claim claim = claim_of(use);
    int error = lock_bytes(fd, kDoneBase, claim.done);
    if (error == 0) {
        error = lock_bytes(fd, kExcludedBase, claim.excluded);
    }
    if (error == EAGAIN || error == EACCES) {
        return false;  // somebody is just looking, or holds the byte for good
    }
    // NFS without a lock daemon and the like: as QEMU does, without locks rather than not at all.
    if (error == ENOLCK || error == EOPNOTSUPP || error == EINVAL) {
        return true;
    }
    if (error != 0) {
        throw errno_error(error, "cannot lock '" + path + "'");
    }
    return !is_any_locked(fd, kDoneBase, claim.excluded) &&
           !is_any_locked(fd, kExcludedBase, claim.done);
}

}  // namespace nbdm
