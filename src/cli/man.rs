//! `man [COMMAND] [--dir DIR]`: a page for every command.

use std::path::{Path, PathBuf};
use std::{fs, io};

use clap::Args;
use clap_mangen::Man as Page;

use super::args;
use crate::exit;

/// Arguments of `leasewrap man`.
#[derive(Debug, Args)]
#[command(
    after_long_help = "Examples:\n  leasewrap man | man -l -\n  leasewrap man --dir /usr/local/share/man/man1"
)]
pub struct Man {
    /// Which subcommand's page; the page of leasewrap itself without one
    #[arg(value_name = "SUBCOMMAND", conflicts_with = "dir")]
    about: Option<String>,

    /// Write the pages of all commands there
    #[arg(long, value_name = "DIR")]
    dir: Option<PathBuf>,
}

impl Man {
    /// Prints or writes.
    pub fn perform(self) -> u8 {
        match (self.dir, self.about) {
            (Some(dir), _) => match write_all(&dir) {
                Ok(()) => 0,
                Err(error) => {
                    super::say(&format!(
                        "leasewrap: cannot write man pages to {}: {error}",
                        dir.display()
                    ));
                    exit::FAILED
                }
            },
            (None, about) => print(about.as_deref()),
        }
    }
}

fn print(about: Option<&str>) -> u8 {
    let name = about.map_or_else(
        || "leasewrap".to_owned(),
        |about| format!("leasewrap-{about}"),
    );
    match pages().into_iter().find(|(page, _)| *page == name) {
        Some((_, text)) => super::print(&text),
        None => {
            let names: Vec<_> = args::definition()
                .get_subcommands()
                .map(|command| command.get_name().to_owned())
                .collect();
            super::say(&format!(
                "leasewrap: man: '{}' is not one of {}",
                about.unwrap_or_default(),
                names.join(", ")
            ));
            exit::USAGE
        }
    }
}

fn write_all(dir: &Path) -> io::Result<()> {
    fs::create_dir_all(dir)?;
    for (name, page) in pages() {
        fs::write(dir.join(format!("{name}.1")), page)?;
    }
    Ok(())
}

/// Every page: its name without the section, and its text.
fn pages() -> Vec<(String, Vec<u8>)> {
    let mut root = args::definition().disable_help_subcommand(true);
    root.build();
    let mut pages = vec![("leasewrap".to_owned(), render(root.clone()))];
    for command in root.get_subcommands() {
        let name = format!("leasewrap-{}", command.get_name());
        let command = command.clone().display_name(name.clone());
        pages.push((name, render(command)));
    }
    pages
}

fn render(command: clap::Command) -> Vec<u8> {
    let mut page = Vec::new();
    // Writing to memory does not fail.
    drop(Page::new(command).render(&mut page));
    page
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_command_has_a_page() {
        let pages = pages();
        assert_eq!(
            pages.len(),
            args::definition().get_subcommands().count() + 1
        );
        for (name, page) in pages {
            let page = String::from_utf8_lossy(&page).into_owned();
            assert!(page.contains(".SH SYNOPSIS"), "{name}: {page}");
            assert!(page.contains("\\-\\-help"), "{name}: {page}");
        }
    }
}
