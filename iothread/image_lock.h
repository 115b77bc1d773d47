// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <string>

namespace nbdm {

// What somebody does with a disk image.
enum class ImageUse {
    read,           // while nobody writes to it
    read_anything,  // also while somebody writes to it
    write,          // as its only writer
};

// QEMU's locks on disk images: shared locks of the open file description on single bytes, one for
// each thing that is done to the image and one for each thing that others are not to do. Other
// programs that keep to them (qemu-system, qemu-nbd, qemu-img, nbd-mirror-server) see ours and we
// see theirs. Bytes and meanings are those of QEMU's block/file-posix.c, version 7.2.
//
// The lock is held until `fd` and its duplicates are closed. False: somebody uses the image in a
// way that this use excludes. A file system that has no locks lets everybody pass.
//
// Threads: any. Throws std::system_error that names `path` when locks fail for another reason.
[[nodiscard]] bool lock_image(int fd, const std::string& path, ImageUse use);

}  // namespace nbdm
