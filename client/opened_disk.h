// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <string>

namespace nbdm {

// A disk as a server of this machine says that it has opened it.
struct OpenedDisk {
    std::string path;
    std::string place;    // DiskFile::place()
    bool direct = false;  // it is read and written past the page cache
};

}  // namespace nbdm
