"Packaging: everything is said in settings.ini."
import shutil
from configparser import ConfigParser
from pathlib import Path

import setuptools
from setuptools.command.build_py import build_py

here = Path(__file__).parent
parser = ConfigParser(delimiters=["="], interpolation=None)
parser.read(here/"settings.ini", encoding="utf-8")
cfg = parser["DEFAULT"]
extras = {k.removesuffix("_requirements"): v.split() for k, v in cfg.items() if k.endswith("_requirements")}
lib, site, git = cfg["lib_path"], cfg["doc_host"] + cfg["doc_baseurl"], cfg["git_url"]

# what commands read of the project; the wheel has a copy, see bert_ner.core.project_file
PROJECT = ("nbs/07a_page.ipynb", "nbs/07f_review_page.ipynb", "nbs/voila", "nbs/sample", "deploy", "triton-constraints.txt")


class Build(build_py):
    "The library, and with it what its commands read of the project."
    def run(self):
        super().run()
        if self.editable_mode: return
        for source, target in self.copies():
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(source, target)

    def copies(self):
        "(file, its copy)."
        files = [f for name in PROJECT for f in ([here/name] if (here/name).is_file() else sorted((here/name).rglob("*")))]
        return [(f, Path(self.build_lib)/lib/"project"/f.relative_to(here)) for f in files if f.is_file()]

    def get_outputs(self, include_bytecode=True):
        return [*super().get_outputs(include_bytecode), *(str(target) for _, target in self.copies())]


setuptools.setup(
    cmdclass={"build_py": Build},
    name=cfg["lib_name"],
    version=cfg["version"],
    description=cfg["description"],
    keywords=", ".join(cfg["keywords"].split()),
    license_expression="Apache-2.0",
    license_files=["LICENSE"],
    author=cfg["author"],
    author_email=cfg["author_email"],
    url=git,
    project_urls={"Documentation": site, "Changelog": f"{git}/blob/{cfg['branch']}/CHANGELOG.md", "Issues": f"{git}/issues"},
    classifiers=[
        "Development Status :: 4 - Beta",
        "Intended Audience :: Developers",
        "Intended Audience :: Science/Research",
        "Operating System :: POSIX :: Linux",
        "Operating System :: MacOS",
        "Operating System :: Microsoft :: Windows",
        *(f"Programming Language :: Python :: 3.{minor}" for minor in range(10, 14)),
        "Topic :: Scientific/Engineering :: Artificial Intelligence",
        "Topic :: Text Processing :: Linguistic",
        "Typing :: Typed",
    ],
    long_description=(here/"README.md").read_text(encoding="utf-8"),
    long_description_content_type="text/markdown",
    packages=setuptools.find_packages(include=[lib, lib + ".*"]),
    package_data={lib: ["pretrained*/*", "pretrained*/onnx/*", "page/*", "templates/*", "py.typed"]},
    python_requires=f">={cfg['min_python']}",
    install_requires=cfg["requirements"].split(),
    extras_require=extras,
    entry_points={"console_scripts": cfg["console_scripts"].split(), "nbdev": [f"{lib}={lib}._modidx:d"],
                  "spacy_factories": [f"{lib} = {lib}.spacy_component:make_component"]},
    zip_safe=False,
)
