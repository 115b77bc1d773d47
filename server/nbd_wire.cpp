// SPDX-License-Identifier: Apache-2.0
#include "server/nbd_wire.h"

#include <cerrno>

namespace nbdm::wire {

Error error_from_errno(int error) noexcept {
    switch (error) {
        case 0:
            return Error::none;
        case EPERM:
        case EACCES:
        case EROFS:
            return Error::perm;
        case ENOMEM:
            return Error::no_memory;
        case EINVAL:
            return Error::invalid;
        case ENOSPC:
        case EDQUOT:
        case EFBIG:
            return Error::no_space;
        case EOVERFLOW:
            return Error::overflow;
        case ENOTSUP:
            return Error::not_supported;
        case ESHUTDOWN:
            return Error::shutdown;
        default:
            return Error::io;
    }
}

}  // namespace nbdm::wire
