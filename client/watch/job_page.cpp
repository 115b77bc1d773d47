// SPDX-License-Identifier: Apache-2.0
#include "client/watch/job_page.h"

#include <algorithm>
#include <cctype>
#include <utility>

#include "client/watch/drawings.h"
#include "client/watch/glyphs.h"
#include "client/watch/job_words.h"
#include "client/watch/page_rows.h"
#include "control/size.h"

namespace nbdm {

namespace {

using Hue = Ink::Hue;
using Weight = Ink::Weight;

using Level = PageRows::Level;

constexpr Ink kFaint{Hue::grey};
constexpr Ink kBold{Hue::plain, Weight::bold};
// From this width on there is room for facts beside the pictures.
constexpr std::size_t kWide = 64;
// Rows that a page has besides those of its disks, when it is at its shortest.
constexpr std::size_t kRowsBesidesDisks = 6;

class JobPage {
  public:
    JobPage(const JobView& job, const RateHistory& history, const PageFormat& format)
        : job_(job),
          history_(history),
          format_(format),
          glyphs_(glyphs_of(format.style)),
          columns_(format.columns > 2 * PageRows::kMargin ? format.columns - 2 * PageRows::kMargin
                                                          : 0),
          wide_(columns_ >= kWide) {}

    [[nodiscard]] std::vector<StyledLine> draw();

  private:
    [[nodiscard]] static StyledLine indented() {
        return StyledLine().add(std::string(PageRows::kMargin, ' '));
    }
    // As many of the facts as fit behind what is on the line already.
    [[nodiscard]] StyledLine with_facts(StyledLine line,
                                        const std::vector<StyledLine>& facts) const;
    void add_title();
    void add_phases();
    void add_disk(const DiskView& disk);
    [[nodiscard]] std::vector<StyledLine> numbers_of(const DiskView& disk) const;
    void add_rates();
    void add_downtime();
    void add_limits();
    void add_notes();
    void add_foot();
    [[nodiscard]] StyledLine measured(const char* label, const StyledLine& picture,
                                      const std::vector<StyledLine>& facts) const;
    [[nodiscard]] std::size_t picture_columns() const {
        const std::size_t beside = label_columns() + 2 + (wide_ ? 33 : 17);
        return columns_ > beside ? columns_ - beside : 0;
    }
    [[nodiscard]] std::size_t label_columns() const { return wide_ ? 11 : 9; }

    const JobView& job_;
    const RateHistory& history_;
    const PageFormat& format_;
    const Glyphs& glyphs_;
    const std::size_t columns_;
    const bool wide_;
    PageRows rows_;
};

std::vector<StyledLine> JobPage::draw() {
    add_title();
    const std::size_t room =
        format_.rows > kRowsBesidesDisks + 1 ? format_.rows - kRowsBesidesDisks : 1;
    const std::size_t shown = std::min(job_.disks.size(), room);
    if (job_.disks.size() == 1 && !job_.disks.front().source.empty()) {
        const DiskView& disk = job_.disks.front();
        rows_.add(Level::ends, indented().add(ends_of(disk, columns_, glyphs_), kFaint));
    }
    rows_.add_air();
    add_phases();
    for (std::size_t i = 0; i < shown; ++i) {
        add_disk(job_.disks[i]);
    }
    if (shown < job_.disks.size()) {
        rows_.add(Level::bar,
                  indented().add("and " + std::to_string(job_.disks.size() - shown) + " more disks",
                                 kFaint));
    }
    if (std::any_of(job_.disks.begin(), job_.disks.end(),
                    [](const DiskView& disk) { return !disk.cells.empty(); })) {
        rows_.add(Level::ends, indented().add(draw_legend(glyphs_)));
    }
    rows_.add_air();
    add_rates();
    add_downtime();
    if (!is_over(job_.phase)) {
        add_limits();
    }
    rows_.add_air();
    add_notes();
    add_foot();
    return rows_.fit(columns_, format_.rows, glyphs_);
}

StyledLine JobPage::with_facts(StyledLine line, const std::vector<StyledLine>& facts) const {
    bool first = true;
    for (const StyledLine& fact : facts) {
        const std::size_t between = first ? 0 : 3;
        if (line.columns() + between + fact.columns() > columns_ + PageRows::kMargin) {
            continue;
        }
        if (!std::exchange(first, false)) {
            line.add(" ").add(glyphs_.between, kFaint).add(" ");
        }
        line.add(fact);
    }
    return line;
}

void JobPage::add_title() {
    const bool coloured = format_.style.colours != TextStyle::Colours::none;
    const Badge badge = badge_of(job_);
    std::string text = badge.text;
    std::transform(text.begin(), text.end(), text.begin(), [](char c) {
        return static_cast<char>(std::toupper(static_cast<unsigned char>(c)));
    });
    StyledLine line = indented();
    line.add(coloured ? " " + text + " " : "[" + text + "]", {badge.hue, Weight::badge});
    line.add("  ").add(job_.job, kBold);
    if (wide_ && badge.text != words_of(job_.phase)) {
        line.add("  while " + words_of(job_.phase), kFaint);
    }
    if (job_.eta_s && job_.disks.size() > 1) {
        line.add("  " + format_time(*job_.eta_s) + " left");
    }
    const std::size_t end = columns_ + PageRows::kMargin;
    if (line.columns() + 1 + columns_of(format_.corner) <= end) {
        line.tab(end - columns_of(format_.corner)).add(format_.corner, kFaint);
    }
    rows_.add(Level::title, line);
}

void JobPage::add_phases() {
    std::vector<Phase> phases = {Phase::preparing, Phase::copying,      Phase::catching_up,
                                 Phase::ready,     Phase::cutting_over, Phase::done};
    if (is_over(job_.phase)) {
        phases.back() = job_.phase;
    }
    const bool coloured = format_.style.colours != TextStyle::Colours::none;
    StyledLine line = indented();
    for (const Phase phase : phases) {
        if (phase != phases.front()) {
            line.add(" ").add(glyphs_.rule, kFaint).add(" ");
        }
        const std::string name = words_of(phase);
        if (phase != job_.phase) {
            // Nobody knows which of them a job that ended early has been through.
            const bool past = phase < job_.phase && (job_.phase <= Phase::done);
            line.add(name, past ? Ink{} : kFaint);
        } else {
            line.add(coloured ? name : "[" + name + "]", {hue_of(phase), Weight::bold});
        }
    }
    if (line.columns() <= columns_ + PageRows::kMargin) {
        rows_.add(Level::limits, line);
        rows_.add_air();
    }
}

void JobPage::add_disk(const DiskView& disk) {
    const std::string percent = percent_moved(disk);
    const bool several = job_.disks.size() > 1;
    StyledLine head = indented();
    if (several) {
        rows_.add_air();
        constexpr std::size_t kNameColumns = 14;
        head.add(cut_to(short_name_of(disk), kNameColumns, glyphs_), kBold)
            .tab(PageRows::kMargin + kNameColumns + 1);
    }
    StyledLine tail;
    tail.tab(6 - std::min<std::size_t>(percent.size(), 5)).add(percent, kBold);
    if (job_.eta_s && !several) {
        tail.add("  ").add(format_time(*job_.eta_s) + " left");
    }
    const std::size_t beside = head.columns() - PageRows::kMargin + tail.columns();
    const std::size_t bar = columns_ > beside ? columns_ - beside : 0;
    rows_.add(Level::bar,
              head.add(draw_bar(share_moved(disk), bar, {hue_of(job_.phase)}, glyphs_)).add(tail));

    rows_.add(several ? Level::ends : Level::numbers, with_facts(indented(), numbers_of(disk)));
    if (!several) {
        rows_.add_air();
    }
    rows_.add_map(disk);
}

std::vector<StyledLine> JobPage::numbers_of(const DiskView& disk) const {
    const auto size = [](std::uint64_t bytes) { return format_size(static_cast<double>(bytes)); };
    if (disk.total_bytes == 0) {
        return {StyledLine().add("what has to be moved is not known yet", kFaint)};
    }
    std::vector<StyledLine> facts = {
        StyledLine().add(size(disk.moved_bytes) + " of " + size(disk.total_bytes)),
        StyledLine().add(size(disk.dirty_bytes) + " dirty",
                         {disk.dirty_bytes > 0 ? Hue::yellow : Hue::plain}),
        StyledLine().add("pass " + std::to_string(disk.passes)),
        StyledLine().add("disk of " + size(disk.size_bytes), kFaint)};
    if (!wide_ && disk.dirty_bytes > 0) {
        std::swap(facts[0], facts[1]);  // there is room for one of them
    }
    return facts;
}

StyledLine JobPage::measured(const char* label, const StyledLine& picture,
                             const std::vector<StyledLine>& facts) const {
    StyledLine line = indented().add(label, kFaint).tab(PageRows::kMargin + label_columns());
    line.add(picture).tab(PageRows::kMargin + label_columns() + picture_columns() + 2);
    return with_facts(line, facts);
}

void JobPage::add_rates() {
    std::vector<std::optional<double>> copy;
    std::vector<std::optional<double>> dirty;
    // Both have one scale: which of them is larger decides when the job is ready.
    double top = 0;
    const std::size_t columns = picture_columns();
    const std::size_t first = history_.size() > columns ? history_.size() - columns : 0;
    for (std::size_t i = first; i < history_.size(); ++i) {
        copy.push_back(history_[i].copy);
        dirty.push_back(history_[i].dirty);
        top = std::max({top, history_[i].copy.value_or(0), history_[i].dirty.value_or(0)});
    }
    const auto rate = [&](std::optional<double> value) {
        return StyledLine().add(value ? format_size(*value) + "/s" : glyphs_.unknown);
    };
    const RateSample now = is_over(job_.phase) ? RateSample{} : rates_of(job_);
    const std::string limit =
        job_.bwlimit_bytes_per_s
            ? "limit " + format_size(static_cast<double>(*job_.bwlimit_bytes_per_s)) + "/s"
            : "no limit";
    rows_.add(Level::rates, measured(wide_ ? "copy rate" : "copy",
                                     draw_sparkline(copy, top, columns, {Hue::blue}, glyphs_),
                                     {rate(now.copy), StyledLine().add(limit, kFaint)}));
    rows_.add(Level::rates, measured(wide_ ? "dirty rate" : "dirty",
                                     draw_sparkline(dirty, top, columns, {Hue::yellow}, glyphs_),
                                     {rate(now.dirty)}));
}

void JobPage::add_downtime() {
    const std::optional<double> value =
        job_.downtime_ms ? job_.downtime_ms : job_.expected_downtime_ms;
    const bool fits = !value || !job_.max_downtime_ms || *value <= *job_.max_downtime_ms;
    std::vector<StyledLine> facts;
    if (value) {
        facts.push_back(
            StyledLine().add(format_ms(*value), {fits ? Hue::plain : Hue::red, Weight::bold}));
        facts.front().add(wide_ && !job_.downtime_ms ? " expected" : "");
    } else {
        facts.push_back(
            StyledLine().add(wide_ && !is_over(job_.phase) ? "not known yet" : glyphs_.unknown));
    }
    if (job_.max_downtime_ms) {
        const std::string allowed = format_ms(*job_.max_downtime_ms);
        if (wide_) {
            facts.push_back(StyledLine().add(allowed + " allowed", kFaint));
        } else {
            facts.front().add(" of " + allowed);
        }
    }
    rows_.add(
        Level::rates,
        measured("downtime", draw_gauge({value, job_.max_downtime_ms}, picture_columns(), glyphs_),
                 facts));
}

void JobPage::add_limits() {
    StyledLine line = indented().add("limits", kFaint).tab(PageRows::kMargin + label_columns());
    std::vector<StyledLine> facts;
    const auto add = [&](const std::string& fact, Ink ink = {}) {
        facts.push_back(StyledLine().add(fact, ink));
    };
    const std::string throttle = throttle_of(job_);
    add(throttle.empty() ? "writers not throttled" : throttle,
        throttle.empty() ? Ink{} : Ink{Hue::yellow, Weight::bold});
    if (!wide_ && job_.bwlimit_bytes_per_s) {
        add(format_size(static_cast<double>(*job_.bwlimit_bytes_per_s)) + "/s");
    }
    if (job_.connections > 0) {
        add(std::to_string(job_.connections) +
            (job_.connections == 1 ? " connection" : " connections") +
            (job_.connections_auto ? " (auto)" : ""));
    }
    if (!job_.window.empty()) {
        add("window " + job_.window);
    }
    rows_.add(Level::limits, with_facts(line, facts));
}

void JobPage::add_notes() {
    std::vector<std::string> notes;
    if (job_.silent) {
        notes.push_back("no answer from the job for " + std::to_string(job_.silent->count()) +
                        " s; this is what it said last");
    }
    if (!job_.error.empty()) {
        notes.push_back(job_.error);
    }
    constexpr std::size_t kMostLines = 3;
    for (const std::string& note : notes) {
        Level level = Level::bar;
        const Ink ink{job_.phase == Phase::done ? Hue::plain : Hue::red, Weight::bold};
        for (const std::string& line : wrapped("! " + note, columns_, kMostLines, glyphs_.cut)) {
            rows_.add(std::exchange(level, Level::hint), indented().add(line, ink));
        }
    }
}

void JobPage::add_foot() {
    const Hint hint = hint_of(job_);
    StyledLine line = indented();
    const Weight weight = hint.hue == Hue::plain ? Weight::normal : Weight::bold;
    line.add(cut_to(hint.text, columns_, glyphs_), {hint.hue, weight});
    const std::size_t end = columns_ + PageRows::kMargin;
    const std::size_t foot = columns_of(format_.foot);
    if (foot > 0 && line.columns() + 2 + foot <= end) {
        line.tab(end - foot).add(format_.foot, kFaint);
    }
    rows_.add(Level::hint, line);
}

std::vector<std::string> texts(const std::vector<StyledLine>& lines, const PageFormat& format) {
    std::vector<std::string> result;
    result.reserve(lines.size());
    for (const StyledLine& line : lines) {
        // The last column stays free: a terminal that is there has no place for the cursor.
        result.push_back(line.text(format.style, format.columns > 0 ? format.columns - 1 : 0));
    }
    return result;
}

}  // namespace

std::vector<std::string> draw_job_page(const JobView& job, const RateHistory& history,
                                       const PageFormat& format) {
    return texts(JobPage(job, history, format).draw(), format);
}

}  // namespace nbdm
