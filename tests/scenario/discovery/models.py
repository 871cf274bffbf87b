"""Feeders of our own for discovery, small enough to draw."""

from __future__ import annotations

from pathlib import Path

# A substation and two laterals, with a loop, a spur behind a switch and an open tie:
#
#   sourcebus --t (reg)-- a --l1-- b --l2-- c --l3-- d      b: cap; c: pv, ess; d: gen
#                         |         \--s1 (switch)-- e --l4-- c      (a loop: b - e - c)
#                         |--s2 (switch)-- f                (a spur)
#                         |--tie (open)-- d
#                         \--x (single phase, phase b)-- g.1.2 (split-phase load)
LOOPED = """
Clear
New Circuit.looped basekv=12.47 pu=1.0 MVAsc3=2000 MVAsc1=2000
New Transformer.t phases=3 windings=2 buses=(sourcebus a) conns=(wye wye) kvs=(12.47 4.16) kvas=(5000 5000) xhl=4
New RegControl.vr transformer=t winding=2 vreg=122 band=2 ptratio=20 ctprim=300
New Line.l1 bus1=a bus2=b length=1 units=km r1=0.2 x1=0.3 r0=0.4 x0=0.9 c1=0 c0=0 normamps=500
New Line.l2 bus1=b bus2=c length=1 units=km r1=0.2 x1=0.3 r0=0.4 x0=0.9 c1=0 c0=0 normamps=500
New Line.l3 bus1=c bus2=d length=1 units=km r1=0.2 x1=0.3 r0=0.4 x0=0.9 c1=0 c0=0 normamps=500
New Line.l4 bus1=e bus2=c length=1 units=km r1=0.2 x1=0.3 r0=0.4 x0=0.9 c1=0 c0=0 normamps=500
New Line.s1 bus1=b bus2=e switch=yes
New Line.s2 bus1=a bus2=f switch=yes
New Line.tie bus1=a bus2=d switch=yes
Open Line.tie 1
New Transformer.x phases=1 windings=3 buses=(a.2 g.1.0 g.0.2) kvs=(2.4 0.12 0.12) kvas=(50 50 50) xhl=2 xht=2 xlt=1.3
New Capacitor.bank bus1=b kv=4.16 kvar=(100 100) numsteps=2
New Capacitor.series bus1=d bus2=h kv=4.16 kvar=5000
New PVSystem.roof bus1=c kv=4.16 kVA=220 Pmpp=200 irradiance=1
New Storage.box bus1=c kv=4.16 kWrated=100 kWhrated=400 %reserve=15 %stored=60 kva=110
New Generator.diesel bus1=d kv=4.16 kW=150 kVA=180 pf=1
New Load.lc bus1=c kv=4.16 kw=900 kvar=300
New Load.ld bus1=d kv=4.16 kw=300 kvar=100
New Load.lf bus1=f kv=4.16 kw=200 kvar=60
New Load.lh bus1=h kv=4.16 kw=50 kvar=10
New Load.lb bus1=b.3 phases=1 kv=2.4 kw=60 kvar=20
New Load.lg bus1=g.1.2 phases=1 kv=0.24 kw=20 kvar=5
Set VoltageBases=[12.47 4.16 0.208]
CalcVoltageBases
"""

BARE = """
Clear
New Circuit.bare basekv=4.16 pu=1.0
New Line.l1 bus1=sourcebus bus2=b length=1 units=km r1=0.2 x1=0.3 r0=0.4 x0=0.9 c1=0 c0=0
New Load.lb bus1=b kv=4.16 kw=400 kvar=100
New Load.lone bus1=b.2 phases=1 kv=2.4 kw=50 kvar=10
Set VoltageBases=[4.16]
CalcVoltageBases
"""


def write(folder: Path, text: str, name: str = "Master.dss") -> Path:
    """Write a feeder and give its path."""
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / name
    path.write_text(text)
    return path
